"""The three published models give the published code's outputs, from checkpoints with the authors' names.

tests/parity holds outputs of the published models under weights made by a recipe (names, shapes and a seed),
so no weights are needed.
"""
import json, resource, time, zlib
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from saliency_nb.bases import export_authors, load_checkpoint

FOLDER = Path(__file__).parent/'parity'
SHAPES = json.loads((FOLDER/'state_dict_shapes_K64.json').read_text())
SIZE = dict(dinet=(480, 640), salicon=(480, 640), transalnet=(240, 320))

def recipe_tensor(name, shape):
    "The fixture's weights: normal numbers seeded by the tensor's name, scaled by its kind."
    kind = name.split('.')[-1]
    if kind == 'num_batches_tracked': return torch.tensor(0)
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if kind == 'running_var': z = 1 + .1 * abs(z)
    elif kind == 'running_mean': z = .1 * z
    elif len(shape) >= 2: z = z * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif kind == 'weight': z = .3 + .05 * z
    else: z = .1 * z
    return torch.from_numpy(np.asarray(z, np.float32))

def image(host):
    pixels = np.random.RandomState(0).standard_normal((1, 3, *SIZE[host]))
    return torch.from_numpy(pixels.astype(np.float32))

PUBLISHED = [(host, phase) for host in SIZE for phase in (1, 2)]

@pytest.fixture(scope='module', params=PUBLISHED, ids=lambda p: f'{p[0]}-phase{p[1]}')
def published(request, tmp_path_factory):
    "Host, phase and the model read from a checkpoint in the authors' format."
    host, phase = request.param
    path = tmp_path_factory.mktemp('parity')/'model_best.pth'
    shapes = SHAPES[f'{host}.phase{phase}']
    torch.save({f'module.{k}': recipe_tensor(k, s) for k, s in shapes.items()}, path)
    return SimpleNamespace(host=host, phase=phase, model=load_checkpoint(path), shapes=shapes)

@torch.no_grad()
def test_outputs_are_the_published_ones(published, capsys):
    expected, x = np.load(FOLDER/f'{published.host}.npz'), image(published.host)
    activations = published.model.activations(x)[0].numpy()
    start = time.perf_counter()
    saliency = published.model(x)[0].numpy()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with capsys.disabled():
        print(f'\n{published.host}, phase {published.phase}: forward pass {seconds:.2f} s,',
              f'peak memory of the process so far {peak:.2f} GiB')
    assert activations.shape == tuple(expected['bases_shape'])
    assert saliency.shape == tuple(expected['saliency_shape'])
    def off(ours, name): return abs(ours - expected[name].squeeze()).max()
    assert off(saliency[::4, ::4], f'saliency_phase{published.phase}') <= 1e-4
    assert off(activations[:4], 'bases_first4') <= 1e-4
    assert off(activations.mean((1, 2)), 'bases_mean') <= 1e-4

@torch.no_grad()
def test_phases_agree(published):
    if published.phase == 2: pytest.skip('the identity goes from phase 1 to 2')
    model, x = published.model, image(published.host)
    summed = model.read_out(x) # sum_n a_n p_n, then the readout, as the equations say
    reconstructed = torch.nn.functional.conv2d(summed, model.readout.weight, padding=1)[:, 0]
    assert (model.to_phase2()(x) - model.upsampled(reconstructed, x.shape[-2:])).abs().max() <= 1e-4

def test_export_has_the_authors_names_and_shapes(published, tmp_path):
    path = export_authors(published.model, tmp_path/'model.pth')
    tensors = torch.load(path, weights_only=True)
    assert {k: list(v.shape) for k, v in tensors.items()} == published.shapes
