"""Golden scores of a subject's pictures, and the gallery: what known defects do to pictures and their scores."""
