"""Makes the tables of a small shop: clicks.csv, products.csv, text_vectors.npz and image_vectors.npz.

Each user has a taste, each product is of one kind, and the vectors tell the kinds apart as a text or image model would.
"""

import numpy as np
import pandas as pd

USERS, PRODUCTS, KINDS, CLICKS = 120, 80, 4, 12
generator = np.random.default_rng(0)
products = [f"SKU{number:03}" for number in range(PRODUCTS)]
kinds = generator.integers(KINDS, size=PRODUCTS)

clicks = []
for user in range(USERS):
    odds = np.where(kinds == generator.integers(KINDS), 8.0, 1.0)
    chosen = generator.choice(PRODUCTS, size=CLICKS, replace=False, p=odds / odds.sum())
    clicks += [(f"U{user}", products[product], 1000 * user + time) for time, product in enumerate(chosen)]
pd.DataFrame(clicks, columns=["user", "sku", "ts"]).to_csv("clicks.csv", index=False)
pd.DataFrame({"sku": products, "title": [f"Product {p} of kind {k}" for p, k in enumerate(kinds)]}).to_csv(
    "products.csv", index=False
)
for modality, width in (("text", 24), ("image", 32)):
    centres = generator.normal(size=(KINDS, width))
    vectors = centres[kinds] + 0.5 * generator.normal(size=(PRODUCTS, width))
    np.savez(f"{modality}_vectors.npz", item_ids=np.array(products), features=vectors.astype(np.float32))
