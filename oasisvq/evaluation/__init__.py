"""What was lost: metrics, and scores over a split."""
