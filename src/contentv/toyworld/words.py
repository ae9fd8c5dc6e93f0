"""The words of the toy world: how each fact may be said, and the sentences that say it.

A template's `{object}`, `{thing}`, `{other}` are built by the writer; other slots are filled from
NEUTRAL (states nothing) or SLOTS (states one fact). No phrase stands for two values of a fact; the
first phrase of a tuple is the common one.
"""

Phrases = dict[str, tuple[str, ...]]

COLOUR: Phrases = {
    "red": ("red", "crimson", "scarlet"),
    "green": ("green", "emerald"),
    "blue": ("blue", "cobalt"),
    "yellow": ("yellow", "golden"),
    "pink": ("pink", "fuchsia"),
    "cyan": ("cyan", "turquoise", "aqua"),
}
SHAPE: Phrases = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "cross": ("cross", "plus sign"),
}
BACKGROUND: Phrases = {
    "black": ("black", "ebony"),
    "white": ("white", "ivory"),
    "grey": ("grey", "gray"),
    "brown": ("brown", "chocolate"),
}
STYLE: Phrases = {
    "flat": ("flat", "solid", "filled"),
    "outlined": ("outlined", "bordered"),
    "hollow": ("hollow", "empty", "unfilled"),
}
SIZE: Phrases = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}
ADVERB: Phrases = {
    "slow": ("slowly", "gently", "lazily"),
    "fast": ("quickly", "rapidly", "swiftly"),
}
PACE: Phrases = ADVERB | {"fast": ("quickly", "fast", "rapidly", "swiftly")}
SLOW: Phrases = {"slow": ("slow",), "fast": ("fast", "quick")}
CRAWLS: Phrases = {"slow": ("crawls", "creeps"), "fast": ("races", "rushes")}
WAY: Phrases = {
    "left": ("left", "to the left", "leftwards", "towards the left"),
    "right": ("right", "to the right", "rightwards", "towards the right"),
    "up": ("up", "upwards", "to the top", "towards the top"),
    "down": ("down", "downwards", "to the bottom", "towards the bottom"),
}
RISES: Phrases = {"up": ("rises", "climbs", "ascends"), "down": ("falls", "sinks", "descends")}
RESTS = (
    "stays still", "stands still", "remains still", "does not move", "rests in place",
    "stays in place", "remains motionless",
)  # fmt: skip
CHANGES: Phrases = {
    "grows": ("grows", "expands", "swells", "gets bigger", "becomes larger"),
    "shrinks": ("shrinks", "contracts", "gets smaller", "becomes smaller"),
    "spins": ("spins", "rotates", "revolves", "turns around"),
}
CHANGING: Phrases = {
    "grows": ("growing", "expanding", "swelling"),
    "shrinks": ("shrinking", "contracting"),
    "spins": ("spinning", "rotating", "revolving"),
}
WHERE: Phrases = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "higher than"),
    "below": ("below", "under", "beneath"),
}
HERE: Phrases = {
    "left": ("on the left",), "right": ("on the right",),
    "above": ("at the top",), "below": ("at the bottom",),
}  # fmt: skip
THERE: Phrases = {
    "left": HERE["right"], "right": HERE["left"], "above": HERE["below"], "below": HERE["above"],
}  # fmt: skip

# slot: (the fact it states, how each value is said)
SLOTS: dict[str, tuple[str, Phrases]] = {
    "way": ("motion", WAY),
    "rises": ("motion", RISES),
    "changes": ("motion", CHANGES),
    "changing": ("motion", CHANGING),
    "rests": ("motion", {"still": RESTS}),
    "motionless": ("motion", {"still": ("still", "motionless", "static")}),
    "pace": ("speed", PACE),
    "adverb": ("speed", ADVERB),
    "slow": ("speed", SLOW),
    "crawls": ("speed", CRAWLS),
    "where": ("relation", WHERE),
    "here": ("relation", HERE),
    "there": ("relation", THERE),
    "pan": ("camera", {side: WAY[side] for side in ("left", "right")}),
    "fixed": ("camera", {"still": ("fixed", "steady", "static")}),
    "size": ("size", SIZE),
    "style": ("style", STYLE),
    "ground": ("background", BACKGROUND),
}
NEUTRAL: dict[str, tuple[str, ...]] = {
    "goes": ("moves", "slides", "glides", "travels", "goes"),
    "going": ("moving", "sliding", "gliding", "travelling", "going"),
    "pans": ("pans", "sweeps", "swings", "turns"),
    "panning": ("panning", "sweeping", "swinging", "turning"),
    "sits": ("sits", "lies"),
    "past": ("over", "past", "across"),
}
# Short sentences that name the object(s) and what happens, by family.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "move": (
        "{object} {goes} {way} {pace}",
        "{object} {goes} {pace} {way}",
        "{object} {adverb} {goes} {way}",
        "{object} {going} {way} {pace}",
        "{object} {crawls} {way}",
        "a {slow} {thing} {goes} {way}",
        "a {slow} {thing} {going} {way}",
    ),
    "rise": ("{object} {rises} {pace}", "{object} {adverb} {rises}", "a {slow} {thing} {rises}"),
    "still": (
        "{object} {rests}",
        "{object} that {rests}",
        "a {motionless} {thing}",
        "{object} is {motionless}",
        "there is a {motionless} {thing}",
        "we see {object} that {rests}",
    ),
    "change": (
        "{object} {changes}",
        "{object} that {changes}",
        "{object} is {changing}",
        "{object} {changing}",
        "we see {object} {changing}",
        "there is {object} that {changes}",
    ),
    "two": (
        "{object} {where} {other}",
        "{object} is {where} {other}",
        "{object} {sits} {where} {other}",
        "there is {object} {where} {other}",
        "{where} {other} is {object}",
        "{object} {here} and {other} {there}",
    ),
    "pan": (
        "the camera {pans} {pan} {past} {object}",
        "camera {panning} {pan} {past} {object}",
        "the camera {pans} {pan} and {object} {rests}",
        "{object} as the camera {pans} {pan}",
        "{object} {rests} while the camera {pans} {pan}",
        "a pan {pan} {past} {object}",
    ),
}
GROUNDS = ("on {ground}", "on a {ground} background", "against {ground}", "on a {ground} backdrop")
# Sentences of long captions for what the first sentence left unsaid.
DETAILS: dict[str, tuple[str, ...]] = {
    "size": ("it is {size}", "it looks {size} in the frame", "its size is {size}"),
    "style": ("it is drawn {style}", "it looks {style}", "its form is {style}"),
    "background": (
        "the background is {ground}",
        "the backdrop is plain {ground}",
        "behind it all is {ground}",
    ),
    "camera": (
        "the camera is {fixed}",
        "the camera stays {fixed}",
        "the camera does not move",
        "a {fixed} camera records the scene",
    ),
    "motion": ("it {rests}", "the {thing} {rests}"),
}
PAIR_DETAILS: dict[str, tuple[str, ...]] = DETAILS | {
    "style": ("both are drawn {style}", "both look {style}", "the two shapes are {style}"),
    "motion": ("both stay still", "neither of them moves", "the two remain motionless"),
}
# Prose that states no fact and uses no word that could.
ASIDES = (
    "the clip is short and has no sound",
    "the picture is sharp and free of noise",
    "the light is even from the first frame to the last",
    "soft waves of light fill the scene",
    "nothing else can be seen in the frame",
    "the scene is simple and calm like a page in a book",
    "it could be part of a lesson about shapes",
    "there are no people and no words and no shadows",
    "a child could draw this with a few pencils",
    "the mood is quiet and friendly",
    "every frame is drawn by a computer program",
    "the edges are clean and easy to see",
    "the clip lasts about two seconds",
    "the contrast is good and the picture is easy to read",
    "one may watch the scene again and again",
    "no music plays and no one speaks",
    "the picture is as clean as a page of a good book",
    "every shape is drawn with care",
)
