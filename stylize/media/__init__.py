"""Reading and writing photos and videos; nothing here knows of networks."""
