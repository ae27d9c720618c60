"The command line as a user meets it: real processes, broken data, kill -9, and papermill by hand."
import json, os, shutil, signal, subprocess, sys, time
from pathlib import Path
import pandas as pd, pytest, torch
from PIL import Image
from safetensors.torch import load_file
import numpy as np
from scipy.io import savemat
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
ENV = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1')
SMALL = ['--height', '96', '--width', '128', '--features', '16', '--n-bases', '16', '--epochs', '3', '--epochs2', '1', '--accelerator', 'cpu']

def command(*arguments): return [sys.executable, '-m', 'saliency_nb.cli', *map(str, arguments)]
def done(*arguments): return subprocess.run(command(*arguments), env=ENV, capture_output=True, text=True, timeout=600)

@pytest.fixture(scope='module')
def world(tmp_path_factory): return make_world(tmp_path_factory.mktemp('cli')/'world', n_images=48, size=(96, 128), seed=0)

def missing_images(root): shutil.rmtree(root/'images/train'); return 'images/train'
def corrupt_jpeg(root): p = sorted((root/'images/train').iterdir())[3]; p.write_bytes(p.read_bytes()[:900]); return p.name
def without_fixations(root):
    p = sorted((root/'fixations/train').iterdir())[2]
    savemat(p, dict(gaze=np.zeros(0, [('fixations', object)]), resolution=[96, 128])); return p.name
def missing_partner(root): p = sorted((root/'fixations/val').iterdir())[0]; p.unlink(); return p.name
def empty_graph(root): (root/'scene_graphs.json').write_text('{}'); return 'scene_graphs.json'
def truncated_json(root): p = root/'scene_graphs.json'; p.write_text(p.read_text()[:2000]); return 'scene_graphs.json'
def wrong_size(root): p = sorted((root/'images/val').iterdir())[1]; Image.new('RGB', (64, 64)).save(p); return p.name
def broken_mat(root): p = sorted((root/'fixations/train').iterdir())[5]; p.write_bytes(b'MATLAB 5.0'); return p.name

@pytest.mark.parametrize('harm', [missing_images, corrupt_jpeg, without_fixations, missing_partner, empty_graph, truncated_json, wrong_size, broken_mat], ids=lambda f: f.__name__)
def test_broken_data_is_one_sentence(world, tmp_path, harm):
    root = tmp_path/'world'; shutil.copytree(world, root)
    name = harm(root)
    r = done('run', '--data', root, '--out', tmp_path/'run', *SMALL)
    lines = r.stderr.strip().splitlines()
    assert r.returncode == 1 and len(lines) == 1 and lines[0].startswith('saliency-nb: ') and name in lines[0] and lines[0].endswith('.'), r.stderr
    assert 'Traceback' not in r.stdout + r.stderr

@pytest.mark.parametrize('arguments', [['run', '--model', 'resnet'], ['run', '--backbone', 'vgg'], ['run', '--quantile', '1.5'], ['run', '--weights', 'nowhere.pth'], ['run', '--batch', '1000'], ['run', '--top', '99']], ids=lambda a: a[1])
def test_impossible_parameters_are_one_sentence(world, tmp_path, arguments):
    r = done(*arguments, '--data', world, '--out', tmp_path/'run', *[a for a in SMALL])
    assert r.returncode == 1 and len(r.stderr.strip().splitlines()) == 1 and 'Traceback' not in r.stdout + r.stderr, r.stderr

def test_killed_run_goes_on_and_ends_the_same(world, tmp_path):
    whole = done('run', '--data', world, '--out', tmp_path/'whole', *SMALL)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(command('run', '--data', world, '--out', tmp_path/'killed', *SMALL), env=ENV, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stdout:
        if 'phase 1, epoch 2/3' in line: break
    os.killpg(process.pid, signal.SIGKILL); process.wait(); time.sleep(1)
    subprocess.run(['pkill', '-9', '-f', 'ipykernel_launcher.*' + str(process.pid)], check=False)
    again = done('run', '--data', world, '--out', tmp_path/'killed', *SMALL)
    assert again.returncode == 0, again.stderr
    assert 'phase 1, epoch 1/3' not in again.stdout, 'started from nothing'
    for phase in ('phase1', 'phase2'):
        a, b = (load_file(tmp_path/run/phase/'best.safetensors') for run in ('whole', 'killed'))
        assert max((a[k].double() - b[k].double()).abs().max().item() for k in a) < 1e-6
    assert pd.read_csv(tmp_path/'whole/contributions.csv').round(4).equals(pd.read_csv(tmp_path/'killed/contributions.csv').round(4))
    third = done('run', '--data', world, '--out', tmp_path/'killed', *SMALL)
    assert third.stdout.count('not made again') == 7, third.stdout # every stage
    other = done('run', '--data', world, '--out', tmp_path/'killed', *SMALL, '--quantile', '0.9')
    assert other.stdout.count('not made again') == 3, other.stdout # training and scores are unchanged, thresholds and what follows are not

def test_papermill_by_hand(tmp_path):
    r = subprocess.run(['papermill', str(ROOT/'nbs/analyses/model.ipynb'), str(tmp_path/'out.ipynb'), '-p', 'out', str(tmp_path/'run'), '-p', 'epochs', '1', '-p', 'control', 'False', '--no-progress-bar', '-k', 'python3'],
                       env=ENV, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, r.stderr
    record = json.loads((tmp_path/'run/run.json').read_text())
    assert record['parameters']['epochs'] == 1 and set(record['stages']) == {'phase1', 'phase2', 'scores', 'thresholds', 'dissection', 'contributions'} and record['versions']['torch'] == torch.__version__.split('+')[0]
