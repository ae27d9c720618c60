"Regions and maps that are given: dissection without pictures and without a network."
import numpy as np, pytest
from saliency_nb import dissection
from saliency_nb.dissection import Batch
from saliency_nb.regions import Regions

class Given(Regions):
    "Regions given as arrays, a dictionary per image."
    def __init__(self, found):
        super().__init__({f'image_{i}': '' for i in range(len(found))}, sorted({n for f in found for n in f}), [])
        self.found = found
    def masks(self, i, grid):
        f = self.found[int(i.split('_')[1])]
        return list(f), np.stack(list(f.values())) if f else np.zeros((0, *grid), bool)

@pytest.fixture
def no_pictures(monkeypatch):
    "Maps are given; nothing is read."
    monkeypatch.setattr(dissection, 'read_image', lambda path, size: None)

def batch_of(probe, logits, parts, positions):
    "What a forward pass would make of given maps; parts None: the activations are the parts."
    at = list(map(int, positions))
    lift = (lambda activations: activations) if parts is None else (lambda activations: parts[at])
    return Batch([probe[i] for i in at], logits[at], lift)
