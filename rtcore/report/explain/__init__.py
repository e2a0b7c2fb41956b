"""One tick in words: `tick` tells it, from who was booked when (`bookings`) and how long each step took (`way`)."""
