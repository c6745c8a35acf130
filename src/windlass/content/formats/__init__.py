"""The file formats of transcripts, one file each; `draft` is what all of them fill in."""
