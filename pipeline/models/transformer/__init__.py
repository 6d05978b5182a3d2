"""The video diffusion transformer (Wan 2.1 14B with InfiniteTalk's audio layers), its files and its kernels."""
