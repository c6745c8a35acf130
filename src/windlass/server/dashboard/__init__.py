"""The dashboard: pages drawn on the server that work as plain links and forms, kept fresh by one small script."""
