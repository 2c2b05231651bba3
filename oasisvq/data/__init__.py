"""What is on disk before there are pixels: layouts, preprocessing, prepared datasets."""
