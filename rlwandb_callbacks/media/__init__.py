"""Frames and figures in; pixels, contact sheets and mp4 out."""
