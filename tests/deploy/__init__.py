"""What is deployed fits what the program is."""
