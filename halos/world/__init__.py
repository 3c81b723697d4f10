"""The world outside training, as functions of time: asked, they never act."""
