"""The English in which scenes are told: rules in the notation of `text.notation`.

A register is a tone and an audience. Each of its frames (`frame@...`) has a wording that no other
register has, so both can be told from any sentence; what frames share is how things, places and
relations are named, in simpler words for a child. `{seen}` is a noun phrase of all things, `{says}`
a clause about them, `{tells}` one that may be longer, `{are}` the verb phrase of "there ...".
Things are numbered in the order of telling. Rules that begin with `full` name every attribute and
place. Facts: see `shared.scene_facts`. Texts hold at most 22 tokens, 48 in full.
"""

from functools import cache

from shared.scene import AUDIENCES, COUNT_WEIGHTS, TONES
from text.grammar import Node, Slot
from text.notation import Compiler, Register, read_rules

# Universal tags (Petrov et al. 2012). A token that has more than one says it in the rule.
_LEXICON = {
    "DET": "a the this that my what no",
    "ADP": "in on at to of above over below under beneath near with without than",
    "PUNCT": ". ! ? ,",
    "CCONJ": "and",
    "SCONJ": "while",
    "AUX": "can may be should will am do",
    "PRON": "i we us it you one there which",
    "INTJ": "wow yay hooray yippee oh hey please",
    "ADV": "here how happily kindly clearly indeed",
    "NOUN": """picture drawing page corner side edge middle centre stripes dots spots checks
        pattern circle disc ball square block triangle star heart diamond kite rhombus cross plus
        moon crescent children pupils readers joy delight fun treat figure composition illustration
        observer""",
    "VERB": """sits lies rests stands hides appears dances smiles shines glows look see find spot
        shows contains has drew found love enjoy celebrate let guess observe observes note notice
        depicts comprises presents located positioned situated covered seen observed noted delighted
        thrilled""",
    "ADJ": """red scarlet crimson orange amber yellow golden green emerald blue azure purple violet
        pink rosy black ebony small little tiny compact medium middle-sized mid-sized large
        big huge sizeable solid plain striped stripy checked tartan dotted spotted spotty top bottom
        upper lower higher lower dear young happy funny jolly sweet silly lovely charming delightful
        splendid cheery wonderful evident apparent""",
}
DETAILS = ("some", "full")
TAGS = {token: tag for tag, tokens in _LEXICON.items() for token in tokens.split()}

RULES = read_rules("""
# ---- things

a: a
a@cheerful: 2* a / a {nice}
nice@child: happy / funny / jolly / sweet / silly
nice@adult: lovely / charming / delightful / splendid / cheery

one:
    2* (NP {a} {size} {texture} {colour} {shape})
    4* (NP {a} {size} {colour} {shape})
    3* (NP {a} {texture} {colour} {shape})
    2* (NP {a} {size} {texture} {shape})
    4* (NP {a} {colour} {shape})
    (NP (NP a {size} {colour} {shape}) {texture.clad})
    (NP (NP {a} {colour} {shape}) {texture.clad})
two:
    2* (NP a {size} {colour} {shape})
    2* (NP a {texture} {colour} {shape})
    (NP a {size} {texture} {shape})
    5* (NP {a} {colour} {shape})
    2* (NP {a} {size} {shape})
    2* (NP {a} {texture} {shape})
brief:
    4* (NP a {colour} {shape})
    2* (NP a {size} {shape})
    2* (NP a {texture} {shape})
    2* (NP {a} {shape})
bare: (NP a {shape})
whole:
    3* (NP {a} {size} {texture} {colour} {shape})
    1* (NP (NP a {size} {colour} {shape}) {texture.clad})

shape=circle@child: 2* circle / ball
shape=circle@adult: 2* circle / disc
shape=square@child: 2* square / block
shape=square@adult: square
shape=triangle: triangle
shape=star: star
shape=heart: heart
shape=diamond@child: 2* diamond / kite
shape=diamond@adult: 2* diamond / rhombus
shape=cross@child: 2* cross / plus
shape=cross@adult: cross
shape=moon@child: moon
shape=moon@adult: 2* moon / crescent

colour=red@child: red
colour=red@adult: 4* red / scarlet / crimson
colour=orange@child: orange
colour=orange@adult: 4* orange / amber
colour=yellow@child: yellow
colour=yellow@adult: 4* yellow / golden
colour=green@child: green
colour=green@adult: 4* green / emerald
colour=blue@child: blue
colour=blue@adult: 4* blue / azure
colour=purple@child: purple
colour=purple@adult: 4* purple / violet
colour=pink@child: pink
colour=pink@adult: 4* pink / rosy
colour=black@child: black
colour=black@adult: 4* black / ebony

size=small@child: little / tiny
size=small@adult: 3* small / compact
size=medium@child: 2* middle-sized / medium
size=medium@adult: 2* medium / mid-sized
size=large@child: 2* big / huge
size=large@adult: 3* large / sizeable

texture=solid@child: plain
texture=solid@adult: 2* solid / plain
texture=stripes@child: stripy / striped
texture=stripes@adult: striped
texture=plaid@child: checked / plaid/ADJ
texture=plaid@adult: 2* plaid/ADJ / tartan / checked
texture=dots@child: 2* spotty / spotted
texture=dots@adult: 2* dotted / spotted

texture.clad=solid: (PP with (NP no pattern)) / (PP without (NP a pattern))
texture.clad=stripes: (PP with (NP stripes)) / (VP covered (PP in (NP stripes)))
texture.clad=plaid: (PP in (NP plaid/NOUN)) / (PP with (NP checks))
texture.clad=dots@child: (PP with (NP spots)) / (VP covered (PP in (NP spots)))
texture.clad=dots@adult: (PP with (NP dots)) / (VP covered (PP in (NP dots)))

# ---- places and relations

upper@child: top
upper@adult: 2* top / upper
lower@child: bottom
lower@adult: 2* bottom / lower/ADJ
place=top left: 2* (PP in (NP the {upper} left/ADJ corner)) / (PP at (NP the {upper} left/NOUN))
place=top: 3* (PP at (NP the top/NOUN)) / (PP near (NP the top edge))
place=top right: 2* (PP in (NP the {upper} right/ADJ corner)) / (PP at (NP the {upper} right/NOUN))
place=left: 2* (PP on (NP the left/NOUN)) / (PP on (NP the left/ADJ side))
place=centre@child: (PP in (NP the middle))
place=centre@adult: 2* (PP in (NP the middle)) / (PP in (NP the centre)) / (PP at (NP the centre))
place=right: 2* (PP on (NP the right/NOUN)) / (PP on (NP the right/ADJ side))
place=bottom left:
    2* (PP in (NP the {lower} left/ADJ corner))
    (PP at (NP the {lower} left/NOUN))
place=bottom: 3* (PP at (NP the bottom/NOUN)) / (PP near (NP the bottom edge))
place=bottom right:
    2* (PP in (NP the {lower} right/ADJ corner))
    (PP at (NP the {lower} right/NOUN))

place.short=top left: (PP at (NP the top left/NOUN))
place.short=top: (PP at (NP the top/NOUN))
place.short=top right: (PP at (NP the top right/NOUN))
place.short=left: (PP on (NP the left/NOUN))
place.short=centre: (PP in (NP the middle))
place.short=right: (PP on (NP the right/NOUN))
place.short=bottom left: (PP at (NP the bottom left/NOUN))
place.short=bottom: (PP at (NP the bottom/NOUN))
place.short=bottom right: (PP at (NP the bottom right/NOUN))

relation=left of@child: (PP on (NP (NP the left/NOUN) (PP of {arg})))
relation=left of@adult:
    2* (PP to (NP (NP the left/NOUN) (PP of {arg})))
    (ADVP left/ADV (PP of {arg}))
relation=right of@child: (PP on (NP (NP the right/NOUN) (PP of {arg})))
relation=right of@adult:
    2* (PP to (NP (NP the right/NOUN) (PP of {arg})))
    (ADVP right/ADV (PP of {arg}))
relation=above@child: 2* (PP above {arg}) / (PP over {arg})
relation=above@adult: 3* (PP above {arg}) / (ADJP higher (PP than {arg}))
relation=below@child: (PP below {arg}) / 2* (PP under {arg})
relation=below@adult: 2* (PP below {arg}) / (PP beneath {arg}) / (ADJP lower (PP than {arg}))

pred@plain-child: 2* (VP is/AUX {arg}) / (VP sits {arg}) / (VP hides {arg})
pred@plain-adult: 3* (VP is/AUX {arg}) / (VP sits {arg}) / (VP lies {arg})
pred@cheerful-child: (VP is/AUX {arg}) / 2* (VP dances {arg}) / (VP smiles {arg})
pred@cheerful-adult: (VP is/AUX {arg}) / 2* (VP shines {arg}) / (VP glows {arg})
pred@formal-child: 2* (VP is/AUX {arg}) / (VP rests {arg}) / (VP stands {arg})
pred@formal-adult:
    2* (VP is/AUX (VP located {arg}))
    (VP is/AUX (VP positioned {arg}))
    (VP is/AUX (VP situated {arg}))
    (VP appears {arg})

# ---- noun phrases of all things, and verb phrases of "there" and "here"

seen1:
    4* {one:0}
    4* (NP {one:0} {place:0})
    (NP {one:0} (SBAR (WHNP that/PRON) (S {pred place:0})))
seen2: {pair} / {joined}
seen3: 2* {triple} / {placed} / {apart}
are1: (VP is/VERB {seen})
are2: (VP are/VERB {pair}) / (VP is/VERB {joined})
are3: 2* (VP are/VERB {triple}) / (VP are/VERB {placed}) / (VP is/VERB {chained})
pair:
    4* (NP {two:0} and {two:1})
    (NP (NP {brief:0} {place.short:0}) and (NP {brief:1} {place.short:1}))
joined: (NP {two:0} {relation:0:1 two:1})
triple: (NP {brief:0} , {brief:1} and {brief:2})
placed: (NP (NP {brief:0} {place.short:0}) , {brief:1} and {brief:2})
apart: (NP (NP {brief:0} {relation:0:1 brief:1}) , and {brief:2})
chained: (NP {brief:0} {relation:0:1 brief:1} and {relation:0:2 bare:2})

# ---- clauses

says1:
    4* (S (NP there) (VP is/VERB (NP {one:0} {place:0})))
    4* (S {one:0} {pred place:0})
    2* (S {place:0} (NP there) (VP is/VERB {one:0}))
    (S {place:0} (VP sits {one:0}))
says2:
    2* (S (NP there) (VP are/VERB (NP {two:0} and {two:1})))
    2* (S (NP there) (VP is/VERB {joined}))
    3* (S {two:0} {pred relation:0:1 two:1})
says3: (S (NP there) (VP are/VERB {triple}))
tells1: {says}
tells2:
    6* {says}
    (S (S {brief:0} (VP is/AUX {place:0})) (SBAR while (S {brief:1} (VP is/AUX {place:1}))))
    (S (S {brief:0} (VP is/AUX {place:0})) and (S {brief:1} (VP is/AUX {place:1})))
    2* (S {brief:0} (VP is/AUX {relation:0:1 brief:1}) ,
        (SBAR (WHNP which) (S (VP is/AUX {place.short:1}))))
tells3:
    3* (S (NP there) {are})
    2* (S {brief:0} {pred relation:0:1 brief:1} and {relation:0:2 bare:2})
    2* (S (S {bare:0} (VP is/AUX {relation:0:1 brief:1})) , and
        (S {bare:2} (VP is/AUX {place.short:2})))

# ---- frames: each belongs to one register

frame@plain-adult:
    6* (S {tells} .)
    (S (NP the picture) (VP shows {seen}) .)
    (S (NP this/DET picture) (VP contains {seen}) .)
    (S (PP in (NP the picture)) , {says} .)
    (S (NP the drawing) (VP has {seen}) .)
    (S {seen} (VP can (VP be/AUX (VP seen [clearly]))) .)
frame@plain-child:
    2* (S (VP look (PP at {seen})) .)
    (S (VP see {seen}) .)
    (S (NP i) (VP can (VP see {seen})) .)
    (SQ can (NP you) (VP {find} {seen}) ?)
    2* (S (ADVP here) {are} .)
    2* (S look , {tells} .)
    (S (NP i) (VP drew {seen}) .)
    (S (NP my drawing) (VP has {seen}) .)
    (S (PP on (NP my page)) , {says} .)
    (S (NP we) (VP found {seen}) .)
find: find / spot / see
frame@cheerful-child:
    3* (S {wow} , {tells} !)
    2* (S {wow} , (S (VP look (PP at {seen}))) !)
    2* (S (ADVP here) {are} !)
    (S (INTJ oh) , (S (NP i) (VP love {seen})) !)
    2* (S (VP guess (NP what/PRON)) , {says} !)
    (FRAG (NP what fun) (S (VP to/PART (VP {find} {seen}))) !)
    (S (INTJ hey) , (S (VP let (S (NP us) (VP {find} {seen})))) !)
wow: (INTJ wow) / (INTJ yay) / (INTJ hooray) / (INTJ yippee)
frame@cheerful-adult:
    (FRAG (ADJP how lovely) (S (VP to/PART (VP {find} {seen}))) !)
    (FRAG (NP what a joy) (S (VP to/PART (VP {find} {seen}))) !)
    2* (S (NP what a {delight}) , {says} !)
    3* (S (ADVP happily) , {tells} !)
    2* (S (NP it) (VP is/AUX (ADJP wonderful) (SBAR that/SCONJ {says})) !)
    (S (VP do (VP enjoy {seen})) !)
    (S (NP i) (VP am (VP {delighted} (S (VP to/PART (VP {find} {seen}))))) !)
    (S (VP let (S (NP us) (VP celebrate {seen}))) !)
delight: delight / treat
delighted: delighted / thrilled
frame@formal-child:
    2* (S (NP children) , (S (INTJ please) (VP observe {seen})) .)
    3* (S (NP dear {pupils}) , {says} .)
    (S (NP {pupils}) (VP should (VP note (SBAR that/SCONJ {says}))) .)
    (S (ADVP kindly) (VP look (PP at {seen})) , (NP children) .)
    (S (NP young {pupils}) (VP will (VP notice {seen})) .)
    (S (NP dear children) , (S (INTJ please) (VP note (SBAR that/SCONJ {says}))) .)
pupils: pupils / readers
frame@formal-adult:
    2* (S (NP one/PRON) (VP observes {seen}) .)
    2* (S (NP the {figure}) (VP {depicts} {seen}) .)
    2* (S (NP it) (VP should (VP be/AUX (VP noted (SBAR that/SCONJ {says})))) .)
    (S (NP the observer) (VP will (VP note {seen})) .)
    2* (S (NP it) (VP is/AUX (ADJP {evident}) (SBAR that/SCONJ {says})) .)
    (S {seen} (VP may (VP be/AUX (VP observed))) .)
    (S (ADVP indeed) , {tells} .)
figure: figure / composition / illustration
depicts: depicts / comprises / presents
evident: evident / apparent

# ---- everything is told

full seen1: (NP {whole:0} {place:0})
full seen2: (NP (NP {whole:0} {place:0}) and (NP {whole:1} {place:1}))
full seen3:
    (NP (NP {whole:0} {place:0}) , (NP {whole:1} {place:1}) and (NP {whole:2} {place:2}))
full are1: (VP is/VERB {seen})
full are: (VP are/VERB {seen})
full says1: (S (NP there) {are}) / 2* (S {whole:0} {pred place:0})
full says2:
    (S (NP there) {are})
    (S (S {whole:0} {full.is:0}) and (S {whole:1} {full.is:1}))
full says3:
    (S (NP there) {are})
    (S (S {whole:0} {full.is:0}) , (S {whole:1} {full.is:1}) and (S {whole:2} {full.is:2}))
full.is: (VP is/AUX {place})
full tells: {says}
""")


@cache
def english(detail: str = "some") -> Node:
    """The grammar of all sentences, of part of a scene ("some") or of all of it ("full"): slots for
    tone, audience and number of things, then frames. ValueError for another detail."""
    if detail not in DETAILS:
        raise ValueError(f"detail = {detail!r}: expected one of {', '.join(DETAILS)}")

    def frames(tone: str, audience: str, n: int) -> Node:
        return Compiler(RULES, TAGS, Register(tone, audience, n, detail == "full")).build("frame")

    def by_count(tone: str, audience: str) -> Node:
        return Slot(("count",), {str(n): frames(tone, audience, n) for n in COUNT_WEIGHTS})

    def by_audience(tone: str) -> Node:
        return Slot(("audience",), {audience: by_count(tone, audience) for audience in AUDIENCES})

    return Slot(("tone",), {tone: by_audience(tone) for tone in TONES})
