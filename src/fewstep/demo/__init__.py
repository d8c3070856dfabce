"""The demo in a browser: draw characters and click points, and watch a trained learner adapt to them."""
