"What may differ on a CUDA device: numbers beside those of the CPU, and a whole run in bfloat16. Continuous integration has no GPU; these run wherever there is one."
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
    before = torch.backends.cudnn.allow_tf32; torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('gpu')/'world', n_images=48, size=SIZE, seed=0)

def small(host, n_bases=16):
    torch.manual_seed(0)
    return initialise(build_model(host, n_bases=n_bases, backbone='squeezenet1_0', width=16), torch.rand(4, 3, *SIZE)).eval()

def off(found, wanted): return float((found.double().cpu() - wanted.double()).norm() / wanted.double().norm())

@pytest.mark.parametrize('host', ['salicon', 'dinet', 'transalnet'])
def test_hosts_predict_what_they_predict_on_the_cpu(host):
    model, images = small(host), torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = model(images), model.activations(images); model.cuda()
        assert off(model(images.cuda()), wanted[0]) < 1e-3 and off(model.activations(images.cuda()), wanted[1]) < 1e-3

def test_sums_are_equal():
    "The same logits: counts to the last bit, sums of activations to rounding."
    t = xr.DataArray(np.full(8, .8, np.float32), dict(lower=('basis', np.full(8, -.8, np.float32))), ('basis',))
    found = {}
    for device in ('cpu', 'cuda'):
        total, lifted = Alignment(t, 40, device=device), Contrast(8, 40, 30, device=device)
        for batch in generated_batches(Simulated(30, 40, 9), 8, (12, 16), 30, device=device):
            total.add(batch)
            lifted.add(batch)
        found[device] = total.arrays() | lifted.arrays()
    for k, v in found['cpu'].items():
        exact = k in ('both', 'either', 'active', 'places', 'compared', 'fold_count')
        assert np.allclose(v, found['cuda'][k], rtol=0 if exact else 1e-3, atol=0 if exact else 1e-5 * max(abs(v).max(), 1)), k

def test_analysis_of_one_model(world):
    "Thresholds, dissection and adjusted effect of one model on both devices."
    regions, model, found = open_data(world, 0).regions, small('dinet').to_phase2(), {}
    images = torch.rand(12, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    for d in ('cpu', 'cuda'):
        t = adaptive_thresholds(model.to(d), images, batch=5)
        found[d] = t, dissect(model, regions, t, SIZE), adjusted_contrasts(model, regions, SIZE).effect
    for a, b in zip(found['cpu'], found['cuda']):
        for k in getattr(a, 'data_vars', ['']):
            if k in ('', 'iou', 'contrast', 'inside', 'outside', 'chance_iou'):
                a_, b_ = (v[k] if k else v for v in (a, b))
                assert np.allclose(a_, b_, rtol=.02, atol=.002 * float(abs(a_).max()), equal_nan=True), k

def test_a_run_in_bfloat16(world, tmp_path):
    "Training learns, the same seed gives the same numbers, stages are found again."
    options = analysis_parameters('model') | dict(data=str(world), backbone='squeezenet1_0', features=16, n_bases=16, height=SIZE[0], width=SIZE[1], epochs=3, epochs2=2, lr=1e-3, accelerator='gpu', precision='bf16-mixed')
    runs = [Analysis(**options | dict(out=str(tmp_path/name))) for name in 'ab']
    tables = [(a.scores(), pd.read_csv(tmp_path/name/'phase1/metrics.csv')) for a, name in zip(runs, 'ab')]
    assert runs[0].device.type == 'cuda' and tables[0][1].val_cc.iloc[-1] > tables[0][1].val_cc.iloc[0]
    print('largest difference of two runs:', *(float((x.select_dtypes('number') - y.select_dtypes('number')).abs().max().max()) for x, y in zip(*tables)))
    assert np.allclose(*(t[1].val_cc for t in tables), atol=1e-3)
    assert runs[0].dissection().iou.notnull().all()
    written = (tmp_path/'a/phase1/best.safetensors').stat().st_mtime_ns
    assert Analysis(**options | dict(out=str(tmp_path/'a'))).scores().equals(tables[0][0]) and (tmp_path/'a/phase1/best.safetensors').stat().st_mtime_ns == written # nothing is trained again
