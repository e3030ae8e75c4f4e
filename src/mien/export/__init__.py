"""Models for other engines and other people: ONNX, a page that draws in the browser, a folder for a hub."""
