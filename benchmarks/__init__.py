"""Every number that the project claims, one file a topic; `common` holds the convention they share."""
