"""The chain: image file <-> scan <-> pixels <-> latents <-> indices <-> payload <-> codes."""
