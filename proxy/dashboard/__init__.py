"""The dashboard: one static page, fed by the admin port's ``/events``."""
