"""The search for engines that detect as well: input rectangles, and mending INT8."""
