"""One data set of all parts of COCO's panoptic annotation: python tools/join_coco.py COCO OUT

COCO/annotations/panoptic_PART.json and panoptic_PART/, COCO/images/PART for each part; OUT holds
annotations/panoptic_all.json and links to pictures and masks.
"""
import json
import sys
from pathlib import Path

def link_all(folder, target):
    "Links in `target` to all files of a folder."
    target.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        link = target/file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())

def join(coco, out):
    "Parts share their categories; what is said of images and regions is put one after the other."
    coco, out = Path(coco), Path(out)
    files = sorted((coco/'annotations').glob('panoptic_*.json'))
    if not files: raise SystemExit(f'{coco}/annotations: no panoptic_*.json; give a folder of COCO.')
    parts = [json.loads(f.read_text(encoding='utf-8')) for f in files]
    for file in files:
        link_all(file.with_suffix(''), out/'annotations/panoptic_all')
        link_all(coco/'images'/file.stem.removeprefix('panoptic_'), out/'images')
    joined = parts[0] | {k: [row for p in parts for row in p[k]] for k in ('images', 'annotations')}
    (out/'annotations/panoptic_all.json').write_text(json.dumps(joined), encoding='utf-8')
    print(f"{out}: {len(joined['images'])} images of {', '.join(f.stem for f in files)}")

if __name__ == '__main__': join(*sys.argv[1:])
