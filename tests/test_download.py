"Downloads of a server here that breaks off, lies, is silent, or serves archives that should not be trusted."
import hashlib, io, os, shutil, tarfile, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
import pytest
from saliency_nb import cli, download as dl
from saliency_nb.core import DataError, ParameterError
from saliency_nb.download import Part, Source, download, fetch, unpack

def tag_of(content): return f'"{hashlib.md5(content).hexdigest()}"'

class Handler(BaseHTTPRequestHandler):
    "Files of a dictionary, in ranges too; `kind` says what is odd about a file, `stops` where it breaks off."
    def log_message(self, *_): pass

    def do_GET(self):
        path, server = self.path.lstrip('/'), self.server
        server.seen.append((path, self.headers.get('Range'), self.headers.get('If-Range')))
        if path not in server.files: return self.send_error(404)
        content, kind = server.files[path], server.kind.get(path, '')
        if kind == 'silent': return time.sleep(3)
        start = self.asked_start(content, kind)
        if start >= len(content) and start: return self.send_nothing_left(content)
        self.send_headers(content, start, kind)
        self.send_until_stop(content, start, server.stops.get(path, []))

    def asked_start(self, content, kind):
        "First byte that is asked for, if the server can resume and the file is still the same."
        wanted = self.headers.get('Range')
        same = self.headers.get('If-Range', tag_of(content)) == tag_of(content)
        return int(wanted[6:-1]) if wanted and same and kind != 'no range' else 0

    def send_nothing_left(self, content):
        self.send_response(416)
        self.send_header('Content-Range', f'bytes */{len(content)}')
        self.send_header('Content-Length', '0')
        self.end_headers()

    def send_headers(self, content, start, kind):
        self.send_response(206 if start else 200)
        self.send_header('ETag', tag_of(content))
        self.send_header('Content-Type', 'text/html' if kind == 'page' else 'application/octet-stream')
        self.send_header('Content-Length', str(len(content) - start))
        if start: self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()

    def send_until_stop(self, content, start, stops):
        "The first of the stops is used up."
        end = stops.pop(0) if stops else len(content)
        self.wfile.write(content[start:max(start, end)])
        if end < len(content): self.close_connection = True

@pytest.fixture
def server():
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.daemon_threads = True
    s.files, s.kind = {}, {}
    s.stops, s.seen = {}, []
    s.url = lambda path: f'http://127.0.0.1:{s.server_port}/{path}'
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    yield s
    s.shutdown()
    s.server_close()

def sha(content): return 'sha256:' + hashlib.sha256(content).hexdigest()

def zipped(members):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, 'w') as z:
        for name, content in members.items(): z.writestr(name, content)
    return memory.getvalue()

def names(folder):
    files = [p for p in folder.rglob('*') if not p.is_dir()]
    return sorted(p.relative_to(folder).as_posix() for p in files)

PAYLOAD = os.urandom(5_000_000)

@pytest.fixture
def part(server):
    "A file of five million bytes, with its hash."
    server.files['d.bin'] = PAYLOAD
    return Part('d', server.url('d.bin'), hash=sha(PAYLOAD))

@pytest.fixture
def plain(server):
    "The same, with no hash."
    server.files['d.bin'] = PAYLOAD
    return Part('d', server.url('d.bin'))

# transfers

def test_interrupted_transfer_is_resumed_and_identical(server, part, tmp_path):
    server.stops['d.bin'] = [1_500_000, 3_500_000] # breaks off twice
    path = fetch(part, tmp_path, pause=.01)
    assert path.read_bytes() == PAYLOAD and names(tmp_path) == ['d.bin']
    starts = [int(r[6:-1]) if r else 0 for _, r, _ in server.seen]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] <= 1_500_000 and starts[1] < starts[2] <= 3_500_000

def test_given_up_then_resumed_by_the_same_command(server, part, tmp_path):
    server.stops['d.bin'] = [2_500_000]
    with pytest.raises(DataError, match='goes on where it stopped'): fetch(part, tmp_path, tries=1)
    assert names(tmp_path) == ['.d.bin.part', '.d.bin.part.tag'] # nothing under the final name
    have = (tmp_path/'.d.bin.part').stat().st_size
    assert have > 1_000_000 and fetch(part, tmp_path, tries=1).read_bytes() == PAYLOAD
    assert server.seen[-1][1] == f'bytes={have}-' and names(tmp_path) == ['d.bin']

def left(folder, content):
    "What a transfer of the payload has left there."
    (folder/'.d.bin.part').write_bytes(content)
    (folder/'.d.bin.part.tag').write_text(tag_of(PAYLOAD))

def test_part_that_is_already_whole(server, plain, tmp_path):
    left(tmp_path, PAYLOAD) # killed just before the rename
    assert fetch(plain, tmp_path, tries=1).read_bytes() == PAYLOAD and len(server.seen) == 1

def test_part_longer_than_the_file_starts_again(plain, tmp_path):
    left(tmp_path, PAYLOAD + b'more')
    assert fetch(plain, tmp_path, pause=.01).read_bytes() == PAYLOAD

def test_changed_file_is_not_patched_together(server, plain, tmp_path):
    server.stops['d.bin'] = [2_500_000]
    with pytest.raises(DataError): fetch(plain, tmp_path, tries=1)
    server.files['d.bin'] = newer = os.urandom(4_000_000)
    assert fetch(plain, tmp_path, tries=1).read_bytes() == newer

def test_server_that_cannot_resume(server, part, tmp_path):
    server.stops['d.bin'], server.kind['d.bin'] = [2_500_000], 'no range'
    assert fetch(part, tmp_path, pause=.01).read_bytes() == PAYLOAD
    assert [r is None for _, r, _ in server.seen] == [True, False]

def test_complete_file_is_not_fetched_again(server, part, tmp_path):
    for _ in range(2): fetch(part, tmp_path)
    assert len(server.seen) == 1
    (tmp_path/'d.bin').write_bytes(b'damaged')
    assert fetch(part, tmp_path).read_bytes() == PAYLOAD # one that is there but wrong is

# failures

def no_space(*_): raise OSError(28, 'No space left on device')

# kind -> (what the sentence says, what is changed: c holds server, part, folder and monkeypatch)
FAILURES = {
    'wrong hash': ('published hash', lambda c: setattr(c.part, 'hash', 'md5:' + '0' * 32)),
    '404': ('404', lambda c: setattr(c.part, 'url', c.server.url('elsewhere.bin'))),
    'server closes': ('connection failed', lambda c: c.server.stops.update({'d.bin': [0] * 9})),
    'no server': ('connection failed', lambda c: setattr(c.part, 'url', 'http://127.0.0.1:9/d.bin')),
    'no address': ('connection failed', lambda c: setattr(c.part, 'url', 'http://nowhere.invalid/d.bin')),
    'silent server': ('fell silent', lambda c: c.server.kind.update({'d.bin': 'silent'})),
    'web page': ('web page', lambda c: c.server.kind.update({'d.bin': 'page'})),
    'full disk': ('no space left', lambda c: os.symlink('/dev/full', c.folder/'.d.bin.part')),
    'disk full at the rename': ('no space left', lambda c: c.monkeypatch.setattr(dl.os, 'replace', no_space)),
}

@pytest.mark.parametrize('kind', FAILURES)
def test_failure_is_one_sentence_and_nothing_under_the_final_name(server, plain, tmp_path, monkeypatch, kind):
    said, plant = FAILURES[kind]
    plant(SimpleNamespace(server=server, part=plain, folder=tmp_path, monkeypatch=monkeypatch))
    with pytest.raises(DataError) as e: fetch(plain, tmp_path, tries=2, pause=.01, timeout=.5)
    sentence = str(e.value)
    assert said in sentence and sentence.endswith('.') and '\n' not in sentence and len(sentence) < 300
    assert not (tmp_path/'d.bin').exists() and not (tmp_path/'elsewhere.bin').exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith('tmp')]

def test_folder_that_cannot_be_written(plain, tmp_path):
    (tmp_path/'file').write_text('')
    with pytest.raises(DataError, match='cannot be written|may write'):
        fetch(plain, tmp_path/'file/folder', tries=1)

def test_too_little_space_is_said_before_the_transfer(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    server.files['d.zip'] = zipped({'a': 'a'})
    source = Source('', '', '', [Part('d', server.url('d.zip'), size=10**7)])
    with pytest.raises(DataError, match='make room'): download('d', tmp_path, sources=dict(d=source))
    assert not server.seen

# archives

def tar_with(member):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode='w:gz') as t:
        member.size = 1 if member.isfile() else 0
        t.addfile(member, io.BytesIO(b'x'))
    return memory.getvalue()

def link(name, target):
    m = tarfile.TarInfo(name)
    m.type, m.linkname = tarfile.SYMTYPE, target
    return m

HOSTILE = {
    'parent.zip': zipped({'ok.txt': 'x', '../x': 'x'}),
    'deep.zip': zipped({'a/b/../../../x': 'x'}),
    'absolute.zip': zipped({'/tmp/x': 'x'}),
    'backslash.zip': zipped({'..\\x': 'x'}),
    'drive.zip': zipped({'C:/x': 'x'}),
    'nested.zip': zipped({'ok.txt': 'x', 'inner.zip': zipped({'../../../x': 'x'})}),
    'parent.tar.gz': tar_with(tarfile.TarInfo('../x')),
    'absolute.tar.gz': tar_with(tarfile.TarInfo('/x')),
    'link.tar.gz': tar_with(link('l', '/etc/passwd')),
    'torn.zip': zipped({'a': 'x' * 1000})[:300],
    'no.zip': b'no archive',
    'no.tar.gz': b'no archive',
    'empty.zip': b'',
}

@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_or_broken_archive_is_refused(tmp_path, name):
    home = tmp_path/'a/b/c'
    home.mkdir(parents=True)
    (home/name).write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as e: unpack(home/name, home)
    assert name.split('.')[0] in str(e.value) or 'inner' in str(e.value)
    assert names(tmp_path) == [f'a/b/c/{name}'] # nothing else was written, inside or outside

def test_unpacking(tmp_path):
    out, inner = tmp_path/'out', zipped({'in/2.txt': '2', '__MACOSX/in/._2.txt': '?'})
    archive = zipped({'root/data/x/1.txt': '1', 'root/data/in.zip': inner, 'root/code.m': 'c'})
    (tmp_path/'d.zip').write_bytes(archive)
    written = unpack(tmp_path/'d.zip', out, inside='root/data')
    assert [p.relative_to(out).as_posix() for p in written] == ['in/2.txt', 'x/1.txt'] == names(out)
    (tmp_path/'d.tar.gz').write_bytes(tar_with(tarfile.TarInfo('y/3.txt')))
    unpack(tmp_path/'d.tar.gz', out)
    assert (out/'y/3.txt').read_bytes() == b'x'
    with pytest.raises(DataError, match='no folder'): unpack(tmp_path/'d.zip', out, inside='other')

# the command

CONTENT = zipped({'images/a.txt': 'a', 'images/b.txt': 'b'})

@pytest.fixture
def known(server, monkeypatch):
    "Small data sets in place of the real ones, for the command line."
    server.files |= {'s.zip': CONTENT, 'm.json': b'{}'}
    images = Part('images', server.url('s.zip'), len(CONTENT), sha(CONTENT))
    more = Part('more', server.url('m.json'), default=False)
    small = Source('a small set', 'http://example.org', 'MIT License.', [images, more])
    by_hand = [Part('all', hash=sha(CONTENT))]
    form = Source('behind a form', 'http://example.org/form', 'Ask first.', by_hand, 'Sign the form.')
    gone = Source('', 'http://example.org', '', [Part('all', server.url('gone.zip'))])
    monkeypatch.setattr(dl, 'SOURCES', dict(small=small, form=form, gone=gone))

@pytest.fixture
def command(known, tmp_path, capsys, monkeypatch):
    "`saliency-nb download` in this process and in an empty folder, with what it writes."
    monkeypatch.chdir(tmp_path)
    def run(*arguments):
        code = cli.main(['download', *map(str, arguments)])
        said = capsys.readouterr()
        return SimpleNamespace(code=code, out=said.out, err=said.err)
    return run

UNPACKED = ['downloads.json', 'images/a.txt', 'images/b.txt']

def test_command(server, command, tmp_path):
    form = tmp_path/'form'
    done = command('small')
    assert done.code == 0 and not done.err
    assert done.out.index('MIT License.') < done.out.index('hash as published')
    assert names(tmp_path/'data/small') == UNPACKED
    done = command('small', '--only', 'images', 'more', '--folder', 'data/small')
    assert done.code == 0 and 'images: there already' in done.out
    assert [p for p, *_ in server.seen] == ['s.zip', 'm.json']
    done = command('form', '--folder', form)
    assert done.code == 1 and 'Sign the form.' in done.out
    assert 'http://example.org/form' in done.err and len(done.err.splitlines()) == 1
    (form/'from browser (1).zip').write_bytes(CONTENT)
    done = command('form', '--folder', form)
    assert done.code == 0 and names(form) == UNPACKED, done.err
    done = command('--list')
    assert done.code == 0 and 'small: a small set' in done.out and 'checked by sha256' in done.out
    for wrong in (['smal'], [], ['small', '--only', 'videos'], ['gone']):
        done = command(*wrong)
        assert done.code == 1 and 'Traceback' not in done.out + done.err, wrong
        assert len(done.err.splitlines()) == 1 and done.err.startswith('saliency-nb: '), wrong

LENGTHS = dict(md5=36, sha256=71) # of a hash with its kind

def test_real_sources_claim_only_what_is_published():
    for name, s in dl.SOURCES.items():
        assert s.page.startswith('http') and s.terms and s.parts, name
        for p in s.parts:
            assert p.url or s.by_hand, (name, p.name)
            assert p.hash is None or len(p.hash) == LENGTHS[p.hash.split(':')[0]], (name, p.name)
    with pytest.raises(ParameterError): download('nothing', '.')
