"""Make saliency_nb/tables/coco.csv and categories.csv: our own assignment of every name of GQA, Visual
Genome's short lists, COCO and OSIE to the paper's eleven categories.

Names are facts of their sources: GQA's lists of objects and attributes with its class hierarchy, Visual
Genome's 1600 objects and 400 attributes, COCO's panoptic categories, OSIE's twelve attributes. GQA's classes
give a first assignment (CLASSES), the lists below correct it and assign what no class holds; what stays is
'other' on purpose. Run it after changing a list: python tools/categories.py [../shared/data]
"""
import json, sys
from pathlib import Path
import pandas as pd
from saliency_nb.vocabulary import attribute_name, coco_name, object_name

DATA = Path(sys.argv[1] if len(sys.argv) > 1 else '../shared/data')
TABLES = Path(__file__).parent.parent/'saliency_nb/tables'
OSIE = 'text face emotion sound smell taste touch motion operability watchability touched gazed'.split()

# GQA's classes in the order in which they decide; classes that are not named are 'other'
CLASSES = dict(
    person='social', animal='animal', bird='animal', vehicle='vehicle', aircraft='vehicle',
    watercraft='vehicle', road='ground', sign='text', label='text', symbol='text', clothing='clothing',
    footwear='clothing', accessory='clothing', building='scene', room='scene', place='scene',
    plant='scene', tree='scene', furniture='scene', textile='scene',
    **{'urban environment': 'scene', 'nature environment': 'ground'})

OBJECTS = dict(
    action='gazed, touched, motion, operability, surfing, trick',
    social='''
        person, people, face, emotion, head, hand, leg, ear, eye, nose, arm, foot, mouth, neck, finger,
        wrist, thumb, hair, beard, mustache, tooth, tongue, lip, waist, skin, tattoo, piercing, baby,
        child, man, woman, boy, girl, guy, lady, couple, family, team, audience, crowd, guest, catcher,
        pitcher, forehead, cheek, chin, knee, elbow, shoulder, toe, kid, group, baseball player, tennis
        player, body, eyebrow, ankle, bride, groom, rider, adult, bang, breast, chest, conductor, facial
        hair, goatee, group, little girl, male, motorcyclist, moustache, police, police officer, pony
        tail, ponytail, referee, she, skiier, smile, young man, racer''',
    animal='''
        paw, tail, wing, mane, horn, beak, feather, fur, hoof, horse hoof, herd, animal, fish, bug,
        beetle, octopus, cow, calf, lamb, mouse trap, flock, snout, antler, tusk, claw, whisker, wolf,
        cattle, cub, fin, giraffe head, kitty, nostril, ox, pony, ram, tail feather, muzzle, front leg''',
    vehicle='''
        vehicle, wheel, tire, windshield, propeller, steering wheel, cockpit, train car, food truck, ski
        lift, bicycle, bike, motorcycle, motorbike, scooter, airplane, sail, seat belt, cart, engine,
        headlight, head light, tractor, crane, carriage, wagon, bumper, tail light, hood, hubcap,
        fender, cab, rim, back wheel, brake light, caboose, cycle, dashboard, dirt bike, exhaust pipe,
        front wheel, fuselage, gas tank, handle bar, handlebar, jet engine, kayak, kickstand, landing
        gear, mast, moped, motor, muffler, oar, passenger car, passenger train, pedal, police car, raft,
        sedan, side mirror, spoke, station wagon, tail fin, tail wing, taxi cab, train engine, train
        front, trolley, windshield wiper, wiper, yacht, stabilizer, bike rack, sled, traffic''',
    clothing='''
        clothes, cap, helmet, glasses, sunglasses, backpack, handbag, purse, pocket, collar, knee pad,
        elbow pad, life jacket, safety jacket, lab coat, shoe lace, diaper, armor, crown, ring, wig,
        hair clip, baseball mitt, baseball glove, snow shoe, jeans, goggles, pants, shorts, pajamas,
        leggings, snow pants, accessory, bandage, sleeve, strap, bow tie, tights, trousers, ski boot,
        jewelry, back pack, ball cap, baseball cap, baseball uniform, bathing suit, beanie, bib, brim,
        buckle, catcher's mitt, cleat, clothing, cuff, head band, hoodie, kneepad, lanyard, lapel, life
        vest, mitt, neck tie, necktie, overalls, shin guard, ski goggles, ski jacket, ski pants, ski
        suit, slacks, snow suit, suit jacket, suspender, sweat band, sweatband, sweatpants, swim trunk,
        tennis shoe, trouser, veil, visor, wet suit, wrist band, wrist watch, pin, short''',
    text='''
        text, book, newspaper, magazine, menu, poster, banner, billboard, cookbook, notebook, license
        plate, sign post, graffiti, sticker, sticky note, price tag, name tag, map, word, letter,
        number, chalkboard, dry-erase board, writing, lettering, page, notepad, card, receipt, calendar,
        scoreboard, symbol, ad, advertisement, copyright, date, decal, emblem, grafitti, instruction,
        license, name, numeral, plaque, print, roman numeral, watermark, website''',
    sky='''
        sky, cloud, clouds, sun, moon, air, fog, airspace, rain, blue sky, sunset, rainbow, horizon,
        lightning, day, night, weather''',
    ground='''
        ground, grass, sand, snow, dirt, mud, gravel, field, floor, carpet, rug, mat, crosswalk, train
        track, railroad, path, pavement, sidewalk, road, street, highway, walkway, runway, parking lot,
        lawn, meadow, pasture, beach, shore, ocean, sea, lake, river, pond, water, wave, puddle, swamp,
        desert, plain, sea foam, ice, home plate, mound, manhole cover, intersection, platform,
        playingfield, court, hay, roadside, roadway, trail, curb, tarmac, dirt road, tennis court,
        baseball field, floor wood, driveway, soil, alley, area rug, asphalt, baseline, boardwalk,
        canal, cement, clay, concrete, flooring, foam, grass field, infield, land, lane, line, lot,
        manhole, median, mulch, ocean water, outfield, pathway, pebble, pitcher's mound, pool, railroad
        track, railway, ripple, shoreline, ski slope, ski track, slope, soccer field, splash, stream,
        surf, surface, tile floor, track, train platform, turf, wake, base, footprint''',
    scene='''
        hill, hillside, hilltop, mountain, mountain peak, mountain side, rock, boulder, stone, cliff,
        tree, bush, plant, flower, leaf, branch, tree trunk, tree branch, tree leaf, trunk, log, twig,
        stick, hedge, stump, wildflower, weed, blossom, rose, vine, cactus, hibiscus, lavender, coral,
        straw, pole, post, fence, fence post, gate, bridge, pillar, pipe, chimney, window, window frame,
        door, doorway, door frame, dome, brick, tile, wallpaper, canopy, scaffolding, barrier, deck,
        stairs, step, bench, fire hydrant, traffic light, parking meter, street light, mailbox,
        telephone pole, power line, flower pot, planter, lamp, lamp shade, floor lamp, table lamp, desk
        lamp, sconce, chandelier, light fixture, ceiling light, light bulb, light, fireplace, sink,
        toilet, bathtub, shower, urinal, faucet, counter, countertop, mirror, picture frame, frame,
        headboard, mattress, pillow, drawer, cabinet door, bleacher, fountain, waterfall, tunnel,
        turbine, smoke stack, tent, beach chair, folding chair, seat, trash can, dumpster, waste basket,
        kiosk, fruit stand, store, shop, pizza shop, aquarium, elevator, escalator, island, home, house,
        building, buildings, factory, palace, castle, pub, pantry, buffet, picnic table, dock, dugout,
        vase, shower door, toilet seat, toilet lid, toilet tank, toilet bowl, oven door, room, roof,
        wall, wall brick, wall stone, wall tile, wall wood, window blind, ceiling, grocery, potted
        plant, dining table, chair, couch, bed, shelf, cabinet, table, curtain, blanket, tower, bird
        house, nest, balcony, ledge, railing, rooftop, swimming pool, seaweed, moss, arch, archway,
        area, armrest, awning, background, backsplash, bamboo, bank, bar, bark, barricade, baseboard,
        basin, bath tub, bathroom sink, beam, bed frame, book shelf, booth, brick wall, christmas tree,
        column, counter top, cushion, display case, door handle, door knob, doorknob, enclosure, fern,
        fire escape, fixture, foliage, footboard, foreground, front window, furniture, gazebo, glass
        door, guard rail, hill side, hut, ivy, lamp post, lampshade, landscape, light pole, light post,
        lounge chair, monument, mountain range, mountain top, mountainside, overhang, overpass, palm,
        pane, panel, park bench, peak, petal, pier, pillow case, playground, power pole, quilt, rail,
        ramp, recliner, rock wall, scene, second floor, shack, shed, shingle, shower head, shrub,
        shutter, side window, signal, signal light, skateboard ramp, skatepark, skylight, spire,
        stairway, stall, steeple, stem, stone wall, stool, stop light, stoplight, storefront, street
        lamp, structure, table cloth, tabletop, tap, throw pillow, traffic signal, trash bin, tree line,
        utility pole, valley, vanity, view, window sill, windowsill, wire fence, bud, tub, traffic cone,
        tennis net''',
    color='black, green, yellow',
    other='''
        bath towel, kitchen towel, paper towel, towel, alien, turkey, chicken breast, drawing, heart,
        cross, angry bird, stuffed animal, toy car, rubber duck, moss ball, watchability, sound, smell,
        taste, touch, cloth, display, shield''')

ATTRIBUTES = dict(
    action='''
        standing, walking, sitting, parked, hanging, flying, floating, splashing, grazing, lying,
        jumping, bending, running, pointing, crouching, crouched, squatting, kneeling, brushing teeth,
        making a face, shaking hands, taking a photo, taking a picture, cooking, drinking, driving,
        eating, looking down, looking up, playing, posing, reading, resting, sleeping, staring, talking,
        waiting, performing trick, riding, skateboarding, skating, skiing, snowboarding, surfing,
        swimming, swinging, having meeting, sliding, blowing, waving, perched, batting, hitting,
        spraying, outstretched, docked, dangling, crashing, spinning, raised, leaning, laying, laying
        down, moving, throwing, holding, wearing, watching, bending over, looking, landing, performing,
        playing tennis, racing, reaching, rolling, serving, taking off, airborne, in air, sticking out''',
    social='''
        happy, smiling, young, old, adult, elderly, bald, balding, female, male, asian, caucasian, fat,
        skinny, chubby, muscular, shaved, shirtless, barefoot, laughing, sad, angry, unhappy, curious,
        funny, sleepy, baby, crowded, curly, mature, alert, older, alone''',
    animal='furry, hairy, shaggy, tabby, calico, feathered, groomed, tail, wild, polar, spotted, herd',
    vehicle='double decker',
    clothing='long sleeved, short sleeved, sleeveless, denim, jeans, collared, gloved',
    text='printed, written, license, capital, roman, letter, number, numbered, for sale, stop, one way',
    sky='''
        clear, cloudy, cloudless, overcast, partly cloudy, sunny, rainy, foggy, stormy, hazy, misty,
        gloomy, wispy, sunlit, daytime, night''',
    ground='''
        grassy, sandy, snowy, rocky, paved, unpaved, muddy, gravel, asphalt, dusty, choppy, calm, wavy,
        rippled, rippling, foamy, murky, mowed, cobblestone, snow, ocean, water, carpeted, hardwood,
        barren, railroad, street, dirt, grass, sand, cement, flowing, hilly, snow covered, tarmacked''',
    scene='''
        leafy, leafless, bushy, evergreen, deciduous, tropical, pine, palm, potted, wooded, forested,
        overgrown, blooming, flowered, outdoor, outdoors, indoors, tiled, paneled, arched, shingled,
        domed, fenced, urban, lush, bathroom, kitchen, office, park, attic, bedroom, dining room, living
        room, rock, growing, mountain, tile, bricked, home''',
    color='''
        beige, black, blond, blue, brown, brunette, cream colored, dark, dark blue, dark brown, gold,
        gray, green, khaki, light blue, light brown, maroon, orange, pink, purple, red, silver, tan,
        teal, white, yellow, light, colorful, light colored, dark colored, rainbow colored, multi
        colored, black and white, bright, pale, faded, neon, pastel, vibrant, navy, ivory, tinted,
        discolored, browned, bright blue, burgundy, deep blue, golden, golden brown, greenish, lime
        green, neon green''',
    other='''
        short, concrete, clay, plain, straw, statue, stone, fire, trash, toilet, wrist, wedding, wine,
        wire, wool, computer, toy, ski, paper''')

def lines(path): return [n for n in map(str.strip, path.read_text().splitlines()) if n not in ('', '<unk>')]
def commas(path): return [name for line in lines(path) for name in line.split(',')]
def in_list(text): return ' '.join(text.split()).split(', ')
def listed(groups, rule): return {rule(n): c for c, names in groups.items() for n in in_list(names)}

def assign(
    names, # pairs of a name and its source
    rule, # `object_name` or `attribute_name`
    by_hand: dict, # consolidated name -> category
    by_class: dict, # consolidated name -> category
) -> pd.DataFrame: # name, category, source
    "A category for every name; sources of a name are joined."
    t = pd.DataFrame(names, columns=['name', 'source'])
    t = t.assign(name=t.name.map(rule)).drop_duplicates()
    t = t.groupby('name').source.agg('+'.join).reset_index()
    return t.assign(category=[by_hand.get(n, by_class.get(n, 'other')) for n in t.name])

panoptic = json.loads((DATA/'coco/annotations/panoptic_val2017.json').read_text())['categories']
coco = pd.DataFrame([(c['id'], c['name'], c['isthing']) for c in panoptic], columns=['id', 'name', 'thing'])
hierarchy = json.loads((DATA/'vocab/gqa/class_hierarchy.json').read_text())
by_class = {object_name(n): category for cls, category in reversed(CLASSES.items()) for n in hierarchy[cls]}

def of(source, names): return [(name, source) for name in names]

things = of('gqa', lines(DATA/'vocab/gqa/name_gqa.txt'))
things += of('vg', commas(DATA/'vocab/vg/objects_vocab.txt'))
things += of('coco', map(coco_name, coco.name)) + of('osie', OSIE)
objects = assign(things, object_name, listed(OBJECTS, object_name), by_class)
looks = of('gqa', lines(DATA/'vocab/gqa/attr_gqa.txt'))
looks += of('vg', commas(DATA/'vocab/vg/attributes_vocab.txt'))
by_object = dict(zip(objects.name, objects.category))
attributes = assign(looks, attribute_name, listed(ATTRIBUTES, attribute_name), by_object)
found = pd.concat([objects.assign(kind='object'), attributes.assign(kind='attribute')])
found = found[['kind', 'name', 'category', 'source']]

def write(t, path, header): path.write_text(f'# {header}\n' + t.to_csv(index=False), encoding='utf-8')
write(coco, TABLES/'coco.csv', "COCO's 133 panoptic categories: number, name, and whether it is one of the "
      '80 things. Facts of the COCO panoptic annotations (made by tools/categories.py).')
write(found, TABLES/'categories.csv', 'Semantic categories after Chen, Jiang, Zhao (2023): our own '
      'assignment (tools/categories.py) of names from GQA, Visual Genome, COCO and OSIE.')
print(pd.crosstab(found.category, found.kind))
