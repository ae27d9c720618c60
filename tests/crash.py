"""The crash campaign: kill a run at a random moment, damage one result, change one input, repeat the command.

It has to end with the tables and weights of an undisturbed run of the same inputs, and to make nothing again
that depends on neither the change nor the damage; where a trained model is at stake, it has to stop with its
sentence first. `make crash` does it thirty times and writes bench/crash.csv, `test_crash.py` five times. Most
victims are forked from a process that has imported everything, since imports take longer than these runs; the
others are real commands, of one and of two processes.
"""
import argparse, gc, json, os, random, shutil, signal, subprocess, sys, tempfile, time, traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
import cv2, pandas as pd, torch, xarray as xr
from safetensors.torch import load_file
from saliency_nb.core import SaliencyError
from saliency_nb.backbones import classifier
from saliency_nb.stages import Analysis
from saliency_nb.weights import write_tensors
from saliency_nb.world import make_world

ROOT = Path(__file__).resolve().parent.parent
OTHER = '/dev/shm' # another file system
TINY = dict(height=64, width=96, features=4, n_bases=4, epochs=2, epochs2=2, batch=4, every=1)
TINY |= dict(min_images=1, top=2, accelerator='cpu', lr=1e-3, quantile=.8)
STAGES = 'models scores calibration thresholds dissection contributions controls people maps'.split()
TRAINED = {'phase1', 'phase2', 'original', 'controls/shuffled'}
NAMED = {'dissection', 'units', 'contributions', 'people', 'controls/untrained.nc', 'controls/shuffled.nc'}
EVERYTHING = TRAINED | NAMED | {'scores', 'calibration', 'thresholds', 'maps'}
PRIVATE = {'run.json', 'predict.json', 'training.json', 'summary.json', '.lock'} # no results
TABLES = {'.csv', '.json', '.nc', '.png', '.safetensors'}


# Inputs, and the stages that depend on them

def recoloured(path): cv2.imwrite(str(path), 255 - cv2.imread(str(path)))

def train_image(place): recoloured(min((place/'world/images/train').iterdir()))

def scored_image(place): recoloured(min((place/'world/images/val').iterdir()))

def annotation(place):
    "A thing in a scored image is another thing."
    file = place/'world/scene_graphs.json'
    graphs = json.loads(file.read_text())
    first, second = sorted(f.stem for f in (place/'world/images/val').iterdir())[:2]
    graphs[second]['objects']['0']['name'] = graphs[first]['objects']['2']['name']
    file.write_text(json.dumps(graphs))

def weights(place, seed=1):
    "A backbone."
    torch.manual_seed(seed)
    write_tensors(classifier('squeezenet1_0', None).state_dict(), place/'weights.safetensors')

CHANGES = { # name -> what is done to the inputs, options, stages that depend on it
    'nothing': (None, {}, set()),
    'scored image': (scored_image, {}, {'scores', 'maps'} | NAMED),
    'annotation': (annotation, {}, NAMED),
    'quantile': (None, dict(quantile=.7), {'thresholds'} | NAMED - {'people'}),
    'top': (None, dict(top=1), {'contributions'}),
    'train image': (train_image, {}, EVERYTHING),
    'weights': (weights, {}, EVERYTHING),
    'lr': (None, dict(lr=2e-3), EVERYTHING),
}


# Commands, in processes that can be killed

class Forked:
    "The stages of a run, in a process that has imported everything."
    def __init__(self, place, options, tmpdir):
        self.log, self.returncode = place/'log', None
        self.pid = os.fork()
        if not self.pid: self.live(options, tmpdir)

    def live(self, options, tmpdir):
        tempfile.tempdir, code = tmpdir, 1
        with open(self.log, 'w', buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            try:
                every_stage(options)
                code = 0
            except SaliencyError as e: print(f'saliency-nb: {e}')
            except BaseException: traceback.print_exc()
        os._exit(code)

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid: self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

def every_stage(options):
    analysis = Analysis(**options)
    for stage in STAGES + ['units'] * analysis.p.original: getattr(analysis, stage)()

def started(kind, place, options, tmpdir):
    "A command of this kind in a process of its own, which writes to `log`."
    places = dict(data=place/'world', weights=place/'weights.safetensors', out=place/'run')
    options = TINY | places | options
    if kind == 'forked': return Forked(place, options, tmpdir)
    flags = ['--retrain'] if options.pop('retrain', False) else []
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    name = dict(run=['run'], two=['train', '--devices', '2'])[kind] + ['--preset', 'tiny', '--model', 'dinet']
    env = os.environ | dict(PYTHONPATH=str(ROOT), PYTHONUNBUFFERED='1', OMP_NUM_THREADS='1')
    env |= dict(TMPDIR=tmpdir or tempfile.gettempdir())
    with open(place/'log', 'w') as file:
        line = [sys.executable, '-m', 'saliency_nb.cli', *name, *words, *flags]
        return subprocess.Popen(line, env=env, stdout=file, stderr=file)

def ended(process, seconds):
    "Whether a process ends in time."
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until: time.sleep(.005)
    return process.poll() is not None

def killed(process, moment, place):
    "Kill a process, and wait until those that it has started notice: the last that it said."
    over = ended(process, moment)
    if not over: os.kill(process.pid, signal.SIGKILL)
    ended(process, 10)
    until = time.monotonic() + 30
    while any(str(place) in line for line in command_lines()) or is_locked(place/'run'):
        assert time.monotonic() < until, f'a process of {place} has outlived its parent'
        time.sleep(.1)
    return 'after its end' if over else (place/'log').read_text().strip().split('\n')[-1]

def command_lines():
    "Of all processes but this one."
    for file in Path('/proc').glob('[0-9]*/cmdline'):
        if file.parent.name == str(os.getpid()): continue
        try: yield file.read_bytes().decode(errors='replace')
        except OSError: pass # it has ended

def is_locked(run):
    "Whether a process holds the lock of a run, as /proc/locks tells."
    if not (run/'.lock').exists(): return False
    number = f":{(run/'.lock').stat().st_ino} "
    return number in Path('/proc/locks').read_text()

def trains(process, place):
    "Wait until a command has imported everything and trains."
    log = place/'log'
    while 'epoch 0/' not in log.read_text(): assert not ended(process, .05), log.read_text()

def finished(kind, place, options, tmpdir=None):
    "Repeat a command, and do what its sentences say, until it is done: what was said, the sentences."
    sentences = []
    for _ in range(4):
        process = started(kind, place, options, tmpdir)
        assert ended(process, 300), f'{place}: does not end'
        said = (place/'log').read_text()
        if process.poll() == 0: return said, sentences
        last = said.strip().split('\n')[-1]
        assert 'Traceback' not in said and last.startswith('saliency-nb: '), said
        sentences.append(last)
        if 'remove this file' in last: (place/'run/run.json').unlink()
        elif '--retrain' in last: options = options | dict(retrain=True)
        else: raise AssertionError(said)
    raise AssertionError(sentences)


# One trial

def results(run):
    "Files that a run has written."
    files = [f for f in sorted(run.rglob('*')) if f.is_file() and f.name != '.lock']
    return [f for f in files if 'tensorboard' not in f.parts and '.ipynb' not in f.suffixes]

def damaged(run, draw):
    "Damage one file; its name and how."
    files = results(run)
    if not files: return '', ''
    file, how = draw.choice(files), draw.choice(['truncated', 'emptied', 'deleted', 'flipped', 'braces'])
    if how == 'deleted': file.unlink()
    else: file.write_bytes(changed(file.read_bytes(), how, draw))
    return str(file.relative_to(run)), how

def changed(whole, how, draw):
    "Other bytes."
    if how == 'braces': return b'{}'
    if how == 'truncated': return whole[:len(whole) // 2]
    if how == 'emptied' or not whole: return b''
    at = draw.randrange(len(whole))
    return whole[:at] + bytes(b ^ 255 for b in whole[at:at + 3]) + whole[at + 3:]

def known_stages(run):
    "Finished stages, with their files."
    try: stages = json.loads((run/'run.json').read_text())['stages']
    except (OSError, ValueError): return {}
    return {name: list(s['contents']) for name, s in stages.items() if 'made' in s}

def differences(kind, run, reference):
    "Results that are not those of an undisturbed run; `run` makes figures, too, and no maps."
    mine, theirs = tables(run), tables(reference)
    other = {f for f in mine & theirs if not same(run/f, reference/f)}
    lacking = mine ^ theirs if kind != 'run' else {f for f in theirs - mine if f.parts[0] != 'maps'}
    return sorted(map(str, other | lacking))

def tables(run):
    "Weights, tables and maps of a run."
    files = [f for f in results(run) if f.suffix in TABLES and f.name not in PRIVATE]
    return {f.relative_to(run) for f in files}

def same(one, two):
    "Whether two results are equal, number for number."
    if one.read_bytes() == two.read_bytes(): return True
    if one.suffix == '.nc': return xr.load_dataset(one).equals(xr.load_dataset(two))
    if one.suffix != '.safetensors': return False
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)

def must_stop(run, stages, file, change):
    "Whether a trained model is at stake."
    trained = {name for name in stages if name in TRAINED}
    own = any(file in files for name, files in stages.items() if name in trained)
    begun = any(run.rglob('last.ckpt'))
    return own or CHANGES[change][2] == EVERYTHING and (bool(trained) or begun)

def again(said, stages, file, change):
    "Stages that were made again, but depend on nothing that was changed or damaged."
    def of(name): return any(file == f or file.startswith(f'{f}/') for f in stages[name])
    fresh = [name for name in stages if name not in CHANGES[change][2] and not of(name)]
    return ''.join(f' made again: {name}' for name in fresh if f'\n{name}: unchanged' not in f'\n{said}')

class Campaign:
    "Trials in one folder, with the undisturbed runs they are compared with."
    def __init__(self, folder, seed, short):
        self.folder, self.draw = Path(folder), random.Random(seed)
        self.references, self.seconds = {}, dict(two=3., run=8.) # of training
        short_ones = dict(control=False, epochs=1, epochs2=1)
        self.options = short_ones if short else dict(original=True, shuffled=True)
        self.changes = ['scored image', 'top', 'nothing', 'weights'] if short else list(CHANGES)

    def place(self, name):
        "A folder with inputs of its own, copied from those made once."
        inputs = self.folder/'inputs'
        if not inputs.exists():
            make_world(inputs/'world', n_images=20, size=(64, 96), seed=0)
            weights(inputs, seed=0)
        return shutil.copytree(inputs, self.folder/name)

    def change(self, place, name):
        if CHANGES[name][0]: CHANGES[name][0](place)

    def asked(self, kind, change):
        return ({} if kind == 'two' else self.options) | CHANGES[change][1]

    def reference(self, kind, change):
        "An undisturbed run."
        kind = 'two' if kind == 'two' else 'forked'
        if (kind, change) in self.references: return self.references[kind, change]
        place, start = self.place(f'{kind} {change}'), time.monotonic()
        self.change(place, change)
        _, sentences = finished(kind, place, self.asked(kind, change))
        assert not sentences, sentences
        self.seconds.setdefault(kind, time.monotonic() - start) # the first, which changes nothing
        return self.references.setdefault((kind, change), place/'run')

    def victim(self, kind, place, share, tmpdir):
        "Start a command and kill it when this share of its time is over: the last that it said."
        process = started(kind, place, self.asked(kind, 'nothing'), tmpdir)
        if kind != 'forked': trains(process, place)
        return killed(process, share * self.seconds[kind], place)

    def trial(self, kind, share, tmpdir):
        "Kill, damage, change, repeat; what happened."
        self.reference(kind, 'nothing')
        place, change = self.place(f'trial_{self.draw.getrandbits(32)}'), self.draw.choice(self.changes)
        run, row = place/'run', dict(change=change, killed_at=self.victim(kind, place, share, tmpdir))
        stages = known_stages(run)
        row['file'], row['damage'] = damaged(run, self.draw)
        asked = dict(stages=stages, file=row['file'], change=change)
        stop = must_stop(run, **asked)
        self.change(place, change)
        said, sentences = finished(kind, place, self.asked(kind, change), tmpdir)
        row |= dict(finished=len(stages), stopped=' / '.join(sentences).replace(str(place), ''))
        row['faults'] = self.faults(kind, run, change)
        if row['file'] == 'run.json': return row # what had been made is not known any more
        if bool(sentences) != stop: row['faults'] += ' stopped' if sentences else ' not stopped'
        return row | dict(faults=row['faults'] + again(said, **asked))

    def faults(self, kind, run, change):
        "What differs from an undisturbed run, and what has been left behind."
        other = differences(kind, run, self.reference(kind, change))
        left = [f.name for f in [*run.rglob('.*.part*'), *run.glob('partial')]]
        return ''.join([f' differs: {f}' for f in other] + [f' left: {f}' for f in left])

KINDS = {9: 'two', 19: 'two', 29: 'two', 14: 'run', 24: 'run'} # of a trial; the others are forked

def campaign(trials, seed, folder, short=False, first=0):
    "All trials from a first one on, as a table."
    torch.set_num_threads(1)
    gc.freeze() # what is imported need not be looked through in every forked process
    every, rows = Campaign(folder, seed, short), []
    for n in range(first, trials):
        kind = 'forked' if short else KINDS.get(n, 'forked')
        share = (n + every.draw.random()) / trials if kind == 'forked' else every.draw.random()
        tmpdir = OTHER if n % 2 and os.path.isdir(OTHER) else None
        how = dict(trial=n, process=kind, tmpdir=tmpdir or '')
        rows.append(how | every.trial(kind, share, tmpdir))
        print({k: v for k, v in rows[-1].items() if v != ''}, flush=True)
    gc.unfreeze()
    return pd.DataFrame(rows)

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--trials', type=int, default=30)
    parser.add_argument('--first', type=int, default=0, help='number of the first, where others do the rest')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--log', help='.csv for what happened')
    parser.add_argument('--short', action='store_true', help='smaller runs, without real commands')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = campaign(args.trials, args.seed, folder, args.short, args.first)
    if args.log: table.assign(seed=args.seed).to_csv(args.log, index=False)
    sys.exit(int((table.faults != '').any()))
