"""The portal: the web pages."""
