"""Pictures in and out: every place that holds some -> whole numbers [n, C, H, W]; PNG files, grids of many."""

from diffeo.data.pictures.reading import are_pictures, read_pictures
from diffeo.data.pictures.record import Pictures, as_table
from diffeo.data.pictures.sinks import grid, png_bytes, write_folder, write_png

__all__ = ["Pictures", "are_pictures", "as_table", "grid", "png_bytes", "read_pictures", "write_folder", "write_png"]
