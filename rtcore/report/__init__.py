"""What a run leaves behind and shows: records, summary, pictures, the live view."""
