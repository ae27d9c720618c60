"Training as it happens to people: killed in the middle of an epoch, and spread over several processes."
import os, shutil, signal, subprocess, sys, time
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
import training_job
from nightly import NIGHTLY
from saliency_nb.hosts import register_host
from together import together

ROOT = Path(__file__).resolve().parent.parent
JOB = ROOT/'tests/training_job.py'
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
ENVIRONMENT |= dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')

def job(*arguments, processes=1, wait=True):
    "Start tests/training_job.py, by torchrun where there is more than one process."
    together = ['-m', 'torch.distributed.run', '--standalone', f'--nproc-per-node={processes}']
    line = [sys.executable, *together * (processes > 1), JOB, *map(str, arguments)]
    both = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    started = subprocess.Popen(line, env=ENVIRONMENT, **both)
    if not wait: return started
    out, _ = started.communicate(timeout=240)
    assert started.returncode == 0, out
    return out

@pytest.fixture
def here():
    "A job in this process where none is tested: starting one takes longer than all it does."
    register_host('spots', training_job.Blobs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda name, *arguments: training_job.JOBS[name](*arguments)
    torch.set_num_threads(threads)

def checkpoint(folder): return torch.load(folder/'last.ckpt', weights_only=True)

def position(folder):
    "Finished epochs and steps of a training."
    if not (folder/'last.ckpt').is_file(): return 0, 0
    return checkpoint(folder)['callbacks']['History']['position']

def metrics(folder): return pd.read_csv(folder/'metrics.csv')

@pytest.mark.parametrize('phase', [1, 2])
def test_killed_in_mid_epoch_and_resumed(tmp_path, phase, here):
    here('train', tmp_path/'whole', phase)
    slow = .03 # seconds to read an image, so there is time to hit it
    started = job('train', tmp_path/'killed', phase, 4, slow, wait=False)
    (epochs, steps), deadline = (0, 0), time.time() + 120
    while not (epochs >= 1 and steps > 0): # within the second epoch or later
        assert started.poll() is None and time.time() < deadline, started.communicate()[0]
        time.sleep(.05)
        epochs, steps = position(tmp_path/'killed')
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert len(metrics(tmp_path/'killed')) < 1 + 4
    here('train', tmp_path/'killed', phase)
    whole, resumed = checkpoint(tmp_path/'whole')['state_dict'], checkpoint(tmp_path/'killed')['state_dict']
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert (value.double() - resumed[name].double()).abs().max() <= 1e-6, name
    assert np.allclose(metrics(tmp_path/'whole'), metrics(tmp_path/'killed'), atol=1e-6, equal_nan=True)

def test_two_processes_score_201_images_like_one(tmp_path, here):
    here('train', tmp_path, 1, 2)
    here('score', tmp_path/'best.safetensors', tmp_path/'1.csv')
    together(2, training_job.score, tmp_path/'best.safetensors', tmp_path/'2.csv')
    one, two = (pd.read_csv(tmp_path/f'{n}.csv').set_index('image') for n in (1, 2))
    in_order = [f'spot_{i}' for i in range(201)]
    assert list(one.index) == list(two.index) == in_order, 'an image is missing, doubled or out of order'
    assert set(one) == {'cc', 'nss', 'kld', 'sim', 'auc_judd', 'auc_borji', 'sauc', 'information_gain'}
    assert np.allclose(one, two, atol=1e-6) and not one.isna().any(axis=None)

def test_two_processes_train_together(tmp_path, here):
    here('train', tmp_path/'one', 1, 1)
    job('train', tmp_path/'two', 1, 3, processes=2)
    one, two = metrics(tmp_path/'one'), metrics(tmp_path/'two')
    before = [table.filter(like='val_').iloc[0] for table in (one, two)] # the first step: 13 images, divided
    assert np.allclose(*before, atol=1e-6)
    assert list(two.epoch) == [0, 1, 2, 3] and two.val_cc.max() > two.val_cc[0] + .2
    assert checkpoint(tmp_path/'two')['global_step'] == 3 * (40 // (4 * 2))

@pytest.mark.skipif(not NIGHTLY, reason='torch.compile compiles C++ for a minute: make nightly')
@pytest.mark.skipif(not (shutil.which('g++') or shutil.which('c++')), reason='needs a C++ compiler')
def test_compiled_training_is_the_same_training(tmp_path, here):
    here('train', tmp_path/'plain', 1, 1)
    job('train', tmp_path/'compiled', 1, 1, 0, 'compile')
    plain, compiled = metrics(tmp_path/'plain'), metrics(tmp_path/'compiled')
    assert np.allclose(plain.iloc[0], compiled.iloc[0], atol=1e-3, equal_nan=True)
    assert compiled.val_cc[1] > compiled.val_cc[0] + .2 # dropout draws other numbers
