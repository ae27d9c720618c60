"Downloads against a server on this machine that breaks off, lies, is silent, or serves archives that should not be trusted."
import hashlib, io, os, shutil, tarfile, threading, time, zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import pytest
from saliency_nb import cli, download as dl
from saliency_nb.core import DataError, ParameterError
from saliency_nb.download import Part, Source, download, fetch, unpack

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do_GET(self):
        path, s = self.path.lstrip('/'), self.server
        s.seen.append((path, self.headers.get('Range'), self.headers.get('If-Range')))
        if path not in s.files: return self.send_error(404)
        content, start, kind = s.files[path], 0, s.kind.get(path, '')
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if kind == 'silent': time.sleep(3); return
        if (wanted := self.headers.get('Range')) and kind != 'no range' and self.headers.get('If-Range', tag) == tag: start = int(wanted[6:-1])
        if start >= len(content) and start:
            self.send_response(416); self.send_header('Content-Range', f'bytes */{len(content)}'); self.send_header('Content-Length', '0'); self.end_headers(); return
        self.send_response(206 if start else 200); self.send_header('ETag', tag)
        self.send_header('Content-Type', 'text/html' if kind == 'page' else 'application/octet-stream')
        if kind != 'no length': self.send_header('Content-Length', str(len(content) - start))
        if start: self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        self.end_headers()
        stops = s.stops.get(path, [])
        end = stops.pop(0) if stops else len(content)
        self.wfile.write(content[start:max(start, end)])
        if end < len(content): self.close_connection = True

@pytest.fixture
def server():
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler); s.daemon_threads = True
    s.files, s.stops, s.kind, s.seen = {}, {}, {}, []
    s.url = lambda path: f'http://127.0.0.1:{s.server_port}/{path}'
    threading.Thread(target=s.serve_forever, kwargs=dict(poll_interval=.02), daemon=True).start()
    yield s
    s.shutdown(); s.server_close()

def sha(content): return 'sha256:' + hashlib.sha256(content).hexdigest()
def zipped(members):
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, 'w') as z:
        for name, content in members.items(): z.writestr(name, content)
    return memory.getvalue()
def names(folder): return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if not p.is_dir())

PAYLOAD = os.urandom(5_000_000)

def test_interrupted_transfer_is_resumed_and_identical(server, tmp_path):
    server.files['d.bin'], server.stops['d.bin'] = PAYLOAD, [1_500_000, 3_500_000] # breaks off twice
    path = fetch(Part('d', server.url('d.bin'), hash=sha(PAYLOAD)), tmp_path, pause=.01)
    assert path.read_bytes() == PAYLOAD and names(tmp_path) == ['d.bin']
    starts = [int(r[6:-1]) if r else 0 for _, r, _ in server.seen]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] <= 1_500_000 and starts[1] < starts[2] <= 3_500_000

def test_given_up_then_resumed_by_the_same_command(server, tmp_path):
    server.files['d.bin'], server.stops['d.bin'] = PAYLOAD, [2_500_000]
    part = Part('d', server.url('d.bin'), hash=sha(PAYLOAD))
    with pytest.raises(DataError, match='goes on where it stopped'): fetch(part, tmp_path, tries=1)
    assert names(tmp_path) == ['.d.bin.part', '.d.bin.part.tag'] # nothing under the final name
    have = (tmp_path/'.d.bin.part').stat().st_size
    assert have > 1_000_000 and fetch(part, tmp_path, tries=1).read_bytes() == PAYLOAD
    assert server.seen[-1][1] == f'bytes={have}-' and names(tmp_path) == ['d.bin']

def test_part_that_is_already_whole(server, tmp_path):
    server.files['d.bin'] = PAYLOAD
    (tmp_path/'.d.bin.part').write_bytes(PAYLOAD); (tmp_path/'.d.bin.part.tag').write_text(f'"{hashlib.md5(PAYLOAD).hexdigest()}"') # killed just before the rename
    assert fetch(Part('d', server.url('d.bin')), tmp_path, tries=1).read_bytes() == PAYLOAD and len(server.seen) == 1

def test_part_longer_than_the_file_starts_again(server, tmp_path):
    server.files['d.bin'] = PAYLOAD
    (tmp_path/'.d.bin.part').write_bytes(PAYLOAD + b'more'); (tmp_path/'.d.bin.part.tag').write_text(f'"{hashlib.md5(PAYLOAD).hexdigest()}"')
    assert fetch(Part('d', server.url('d.bin')), tmp_path, pause=.01).read_bytes() == PAYLOAD

def test_changed_file_is_not_patched_together(server, tmp_path):
    server.files['d.bin'], server.stops['d.bin'] = PAYLOAD, [2_500_000]
    with pytest.raises(DataError): fetch(Part('d', server.url('d.bin')), tmp_path, tries=1)
    server.files['d.bin'] = newer = os.urandom(4_000_000)
    assert fetch(Part('d', server.url('d.bin')), tmp_path, tries=1).read_bytes() == newer

def test_server_that_cannot_resume(server, tmp_path):
    server.files['d.bin'], server.stops['d.bin'], server.kind['d.bin'] = PAYLOAD, [2_500_000], 'no range'
    assert fetch(Part('d', server.url('d.bin'), hash=sha(PAYLOAD)), tmp_path, pause=.01).read_bytes() == PAYLOAD
    assert [r is None for _, r, _ in server.seen] == [True, False]

def test_complete_file_is_not_fetched_again(server, tmp_path):
    server.files['d.bin'] = PAYLOAD
    part = Part('d', server.url('d.bin'), hash=sha(PAYLOAD))
    fetch(part, tmp_path); fetch(part, tmp_path)
    assert len(server.seen) == 1
    (tmp_path/'d.bin').write_bytes(b'damaged')
    assert fetch(part, tmp_path).read_bytes() == PAYLOAD # one that is there but wrong is

def refused(server, tmp_path, kind, monkeypatch):
    "A part that cannot be fetched."
    server.files['d.bin'] = PAYLOAD
    part = Part('d', server.url('d.bin'))
    if kind == 'wrong hash': part.hash = 'md5:' + '0' * 32
    if kind == '404': part.url = server.url('elsewhere.bin')
    if kind == 'server closes': server.stops['d.bin'] = [0] * 9
    if kind == 'no server': part.url = 'http://127.0.0.1:9/d.bin'
    if kind == 'no address': part.url = 'http://nowhere.invalid/d.bin'
    if kind == 'silent server': server.kind['d.bin'] = 'silent'
    if kind == 'web page': server.kind['d.bin'] = 'page'
    if kind == 'full disk': os.symlink('/dev/full', tmp_path/'.d.bin.part')
    if kind == 'disk full at the rename':
        def full(*_): raise OSError(28, 'No space left on device')
        monkeypatch.setattr(dl.os, 'replace', full)
    return part

SENTENCE = {'wrong hash': 'published hash', '404': '404', 'server closes': 'connection failed', 'no server': 'connection failed', 'no address': 'connection failed', 'silent server': 'fell silent',
            'web page': 'web page', 'full disk': 'no space left', 'disk full at the rename': 'no space left'}

@pytest.mark.parametrize('kind', SENTENCE)
def test_failure_is_one_sentence_and_nothing_under_the_final_name(server, tmp_path, monkeypatch, kind):
    part = refused(server, tmp_path, kind, monkeypatch)
    with pytest.raises(DataError) as e: fetch(part, tmp_path, tries=2, pause=.01, timeout=.5)
    sentence = str(e.value)
    assert SENTENCE[kind] in sentence and sentence.endswith('.') and '\n' not in sentence and len(sentence) < 300
    assert not (tmp_path/'d.bin').exists() and not (tmp_path/'elsewhere.bin').exists() and not [p for p in tmp_path.iterdir() if p.name.startswith('tmp')]

def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path/'file').write_text('')
    server.files['d.bin'] = PAYLOAD
    with pytest.raises(DataError, match='cannot be written|may write'): fetch(Part('d', server.url('d.bin')), tmp_path/'file/folder', tries=1)

def test_too_little_space_is_said_before_the_transfer(server, tmp_path, monkeypatch):
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    server.files['d.zip'] = zipped({'a': 'a'})
    with pytest.raises(DataError, match='make room'): download('d', tmp_path, sources=dict(d=Source('', '', '', [Part('d', server.url('d.zip'), size=10**7)])))
    assert not server.seen

def tar_with(member):
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode='w:gz') as t:
        member.size = 1 if member.isfile() else 0
        t.addfile(member, io.BytesIO(b'x'))
    return memory.getvalue()
def link(name, target): m = tarfile.TarInfo(name); m.type = tarfile.SYMTYPE; m.linkname = target; return m

HOSTILE = {'parent.zip': zipped({'ok.txt': 'x', '../x': 'x'}), 'deep.zip': zipped({'a/b/../../../x': 'x'}), 'absolute.zip': zipped({'/tmp/x': 'x'}), 'backslash.zip': zipped({'..\\x': 'x'}), 'drive.zip': zipped({'C:/x': 'x'}),
           'nested.zip': zipped({'ok.txt': 'x', 'inner.zip': zipped({'../../../x': 'x'})}), 'parent.tar.gz': tar_with(tarfile.TarInfo('../x')), 'absolute.tar.gz': tar_with(tarfile.TarInfo('/x')),
           'link.tar.gz': tar_with(link('l', '/etc/passwd')), 'torn.zip': zipped({'a': 'x' * 1000})[:300], 'no.zip': b'no archive', 'no.tar.gz': b'no archive', 'empty.zip': b''}

@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_or_broken_archive_is_refused(tmp_path, name):
    home = tmp_path/'a/b/c'; home.mkdir(parents=True)
    (home/name).write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as e: unpack(home/name, home)
    assert name.split('.')[0] in str(e.value) or 'inner' in str(e.value)
    assert names(tmp_path) == [f'a/b/c/{name}'] # nothing else was written, inside or outside

def test_unpacking(tmp_path):
    (tmp_path/'d.zip').write_bytes(zipped({'root/data/x/1.txt': '1', 'root/data/in.zip': zipped({'in/2.txt': '2', '__MACOSX/in/._2.txt': '?'}), 'root/code.m': 'c'}))
    assert [p.relative_to(tmp_path).as_posix() for p in unpack(tmp_path/'d.zip', tmp_path/'out', inside='root/data')] == ['out/in/2.txt', 'out/x/1.txt'] and len(names(tmp_path/'out')) == 2
    (tmp_path/'d.tar.gz').write_bytes(tar_with(tarfile.TarInfo('y/3.txt')))
    unpack(tmp_path/'d.tar.gz', tmp_path/'out')
    assert (tmp_path/'out/y/3.txt').read_bytes() == b'x'
    with pytest.raises(DataError, match='no folder'): unpack(tmp_path/'d.zip', tmp_path/'out', inside='other')

@pytest.fixture
def known(server, monkeypatch):
    "Two small data sets in place of the real ones, for the command line."
    content = zipped({'images/a.txt': 'a', 'images/b.txt': 'b'})
    server.files |= {'s.zip': content, 'm.json': b'{}'}
    sources = dict(small=Source('a small set', 'http://example.org', 'MIT License.', [Part('images', server.url('s.zip'), len(content), sha(content)), Part('more', server.url('m.json'), default=False)]),
                   form=Source('behind a form', 'http://example.org/form', 'Ask first.', [Part('all', hash=sha(content))], 'Sign the form.'), gone=Source('', 'http://example.org', '', [Part('all', server.url('gone.zip'))]))
    monkeypatch.setattr(dl, 'SOURCES', sources)
    return content

def said(capsys, *arguments):
    code = cli.main(['download', *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err

def test_command(server, known, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, 'small')
    assert code == 0 and not err and out.index('MIT License.') < out.index('hash as published') and names(tmp_path/'data/small') == ['downloads.json', 'images/a.txt', 'images/b.txt']
    code, out, _ = said(capsys, 'small', '--only', 'images', 'more', '--folder', 'data/small')
    assert code == 0 and 'images: there already' in out and [p for p, *_ in server.seen] == ['s.zip', 'm.json']
    code, out, err = said(capsys, 'form', '--folder', tmp_path/'form')
    assert code == 1 and 'Sign the form.' in out and 'http://example.org/form' in err and len(err.splitlines()) == 1
    (tmp_path/'form/from browser (1).zip').write_bytes(known)
    code, out, err = said(capsys, 'form', '--folder', tmp_path/'form')
    assert code == 0 and names(tmp_path/'form') == ['downloads.json', 'images/a.txt', 'images/b.txt'], err
    code, out, err = said(capsys, '--list')
    assert code == 0 and 'small: a small set' in out and 'checked by sha256' in out
    for wrong in (['smal'], [], ['small', '--only', 'videos'], ['gone']):
        code, out, err = said(capsys, *wrong)
        assert code == 1 and len(err.splitlines()) == 1 and err.startswith('saliency-nb: ') and 'Traceback' not in out + err, wrong

def test_real_sources_claim_only_what_is_published():
    for name, s in dl.SOURCES.items():
        assert s.page.startswith('http') and s.terms and s.parts, name
        for p in s.parts: assert (p.url or s.by_hand) and (p.hash is None or len(p.hash) == dict(md5=36, sha256=71)[p.hash.split(':')[0]]), (name, p.name)
    with pytest.raises(ParameterError): download('nothing', '.')
