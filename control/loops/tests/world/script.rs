//! Scenarios: a command file in, a transcript out; the difference to the golden transcript is the review.
