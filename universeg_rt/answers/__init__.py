"""What is done to answers on request: masks cleaned up, absent targets left out, a closer look."""
