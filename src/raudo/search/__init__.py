"""The search for engines that detect as well: input rectangles, and layers to keep from INT8."""
