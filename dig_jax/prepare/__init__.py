"""Data sets, prepared once: from official archives and folders to array_record."""
