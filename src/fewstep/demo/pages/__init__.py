"""The two pages of the demo, of Gradio's components: characters and functions."""
