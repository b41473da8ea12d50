"""Images and videos as files: read, drawn on, written, while work goes on."""
