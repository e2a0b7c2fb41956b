"""Two schedules that played the same, side by side: while they go on (view), in numbers (figures), as a picture."""
