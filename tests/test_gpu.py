"""What may differ on a CUDA device: numbers beside those of the CPU, and a whole run in bfloat16.

Continuous integration has no GPU; these run wherever there is one.
"""
import sys
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch, xarray as xr
from saliency_nb.adjustment import adjusted_contrasts
from saliency_nb.bases import build_model, initialise
from saliency_nb.dissection import Alignment, Contrast, dissect
from saliency_nb.stages import Analysis
from saliency_nb.declared import analysis_parameters
from saliency_nb.inputs import open_data
from saliency_nb.thresholds import adaptive_thresholds
from saliency_nb.world import make_world

sys.path.append(str(Path(__file__).resolve().parent.parent/'bench'))
from simulated import Simulated, generated_batches

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
SIZE = 96, 128

@pytest.fixture(autouse=True)
def float32(): # convolutions in full float32: TensorFloat-32 rounds to 10 bits
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp('gpu')/'world', n_images=48, size=SIZE, seed=0)

def small(host, n_bases=16):
    torch.manual_seed(0)
    model = build_model(host, n_bases=n_bases, backbone='squeezenet1_0', width=16)
    return initialise(model, torch.rand(4, 3, *SIZE)).eval()

def off(found, wanted): return float((found.double().cpu() - wanted.double()).norm() / wanted.double().norm())

@pytest.mark.parametrize('host', ['salicon', 'dinet', 'transalnet'])
def test_hosts_predict_what_they_predict_on_the_cpu(host):
    model, images = small(host), torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        predicted, active = model(images), model.activations(images)
        model.cuda()
        assert off(model(images.cuda()), predicted) < 1e-3
        assert off(model.activations(images.cuda()), active) < 1e-3

def test_sums_are_equal():
    "The same logits: counts to the last bit, sums of activations to rounding."
    high, low = np.full(8, .8, np.float32), np.full(8, -.8, np.float32)
    t = xr.DataArray(high, dict(lower=('basis', low)), ('basis',))
    found = {}
    for device in ('cpu', 'cuda'):
        total, lifted = Alignment(t, 40, device=device), Contrast(8, 40, 30, device=device)
        for batch in generated_batches(Simulated(30, 40, 9), 8, (12, 16), 30, device=device):
            total.add(batch)
            lifted.add(batch)
        found[device] = total.arrays() | lifted.arrays()
    counts = ('both', 'either', 'active', 'places', 'compared', 'fold_count')
    for k, v in found['cpu'].items():
        largest = max(abs(v).max(), 1)
        close = dict(rtol=0, atol=0) if k in counts else dict(rtol=1e-3, atol=1e-5 * largest)
        assert np.allclose(v, found['cuda'][k], **close), k

COMPARED = ['iou', 'contrast', 'inside', 'outside', 'chance_iou']

def test_analysis_of_one_model(world):
    "Thresholds, dissection and adjusted effect of one model on both devices."
    regions, model = open_data(world, 0).regions, small('dinet').to_phase2()
    images = torch.rand(12, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    found = {}
    for d in ('cpu', 'cuda'):
        t = adaptive_thresholds(model.to(d), images, batch=5)
        arrays = dissect(model, regions, t, SIZE)
        found[d] = {k: arrays[k] for k in COMPARED if k in arrays}
        found[d] |= dict(thresholds=t, effect=adjusted_contrasts(model, regions, SIZE).effect)
    for k, a in found['cpu'].items():
        slight = .002 * float(abs(a).max())
        assert np.allclose(a, found['cuda'][k], rtol=.02, atol=slight, equal_nan=True), k
def difference(one, other):
    "The largest difference of two tables' numbers."
    return float((one.select_dtypes('number') - other.select_dtypes('number')).abs().max().max())

def test_a_run_in_bfloat16(world, tmp_path):
    "Training learns, the same seed gives the same numbers, stages are found again."
    options = analysis_parameters('model') | dict(
        data=str(world), backbone='squeezenet1_0', features=16, n_bases=16, height=SIZE[0], width=SIZE[1],
        epochs=3, epochs2=2, lr=1e-3, accelerator='gpu', precision='bf16-mixed')
    first, second = (Analysis(**options | dict(out=str(tmp_path/name))) for name in 'ab')
    scores, again = first.scores(), second.scores()
    learned, relearned = (pd.read_csv(tmp_path/name/'phase1/metrics.csv') for name in 'ab')
    assert first.device.type == 'cuda' and learned.val_cc.iloc[-1] > learned.val_cc.iloc[0]
    differences = [difference(scores, again), difference(learned, relearned)]
    print('largest difference of two runs:', *differences)
    assert np.allclose(learned.val_cc, relearned.val_cc, atol=1e-3)
    assert first.dissection().iou.notnull().all()
    checkpoint = tmp_path/'a/phase1/best.safetensors'
    written = checkpoint.stat().st_mtime_ns
    assert Analysis(**options | dict(out=str(tmp_path/'a'))).scores().equals(scores)
    assert checkpoint.stat().st_mtime_ns == written # nothing is trained again
