"""Data sets as their authors hand them out: archives and folders, read and checked.

Nothing is extracted: members of archives are read where they are.
"""
