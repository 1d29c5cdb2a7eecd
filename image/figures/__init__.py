"""The figure world: dressed figures drawn from a layout of their parts and a texture a garment.

`world` draws figures, `layout` says where their parts are, `render` paints them, `reader` reads
pictures back, and `source` makes training data and conditions of them.
"""
