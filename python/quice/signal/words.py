"""The words of codes: two lists of 256, so that a pair of words carries 16 bits.

They were chosen for quice from common English words that are easily said and heard. The idea of two lists, of words
with three syllables and with two, is that of the PGP word list: words in the wrong order are noticed. Any two words
differ by three letters at least, and the first four letters tell a word from all others of its list.
"""

from __future__ import annotations

_THREE_SYLLABLES = """
abacus acrobat adventure alchemy alphabet ambulance apricot architect aroma artichoke asteroid astronaut badminton
bakery balcony banana barbecue barnacle blackberry blueberry boomerang broccoli buffalo bungalow burgundy butterfly
calendar camera candidate canopy caramel cardigan caribou carnival cathedral cavalry celery centipede ceramic
chemistry cinema cinnamon citadel clarinet coconut companion conductor confetti conifer consonant cosmonaut coyote
cranberry crescendo crocodile crossover cucumber customer cylinder decimal designer detective diagram dinosaur
diploma director domino dragonfly dynamo ebony element emerald emperor enamel encounter energy engineer enigma
envelope equation evergreen exhibit explorer fabulous factory festival fiesta firefly flamenco forestry formula
galaxy gallery gardener gazebo gemini gingerbread goldenrod graduate granola gravity guardian habitat hamburger
handlebar harmony hazelnut helium hemisphere hibiscus hickory holiday hologram honeybee horizon hurricane iguana
indigo italic ivory jackrabbit jamboree javelin jellyfish jubilee juniper kangaroo karate kimono kingfisher
kiwifruit koala labyrinth lasagna lavender lemonade library lollipop lumberjack macaron magazine magenta magnetic
marathon marigold marmalade marzipan maverick mechanic medallion melody metronome millipede mineral mockingbird
molecule monument mosquito motorbike museum musketeer mystery narrator nautilus navigate nebula nectarine newspaper
nightingale novelist oasis observer octagon octopus olympic opera orchestra overture oxygen pacific parallel
passenger patio pavilion pedestal pelican pendulum peppermint periscope persimmon photograph pineapple pioneer
platypus polygon porcelain pottery professor propeller pyramid quicksilver raspberry rectangle regatta remedy
reporter restaurant robotic rodeo rosemary safari samurai sandalwood saxophone seventeen signature silicon skeleton
skyscraper soprano spaghetti spatula spectacle stadium strawberry submarine sunflower sycamore symphony tangerine
tapestry telegram terminal tomato tornado tortilla tournament traveler treasury triangle tricycle tropical umbrella
uniform universe valentine vanilla vertical violin vitamin volcano voyager wallaby waterfall wilderness yesterday
"""
_TWO_SYLLABLES = """
acorn almond anchor apple artist atlas autumn bamboo banjo barley beaver biscuit bishop blanket blossom boulder
bracelet breakfast bronze brother bubble bumper cabbage cabin cactus captain carpet cashew chapter cherry chimney
chipmunk chowder circle clockwork clover cobalt cobbler cocoa collie comet compass cotton cougar cowboy cradle
crayon cricket crystal cupcake cushion denim desert diamond dinner doctor dolphin drummer dustpan eagle earring echo
elbow ember errand eyebrow fabric fairway feather fiddle filter footprint fortress fossil fountain freckle freezer
funnel garlic gazelle glacier goblet goggles gopher gravel guitar gumdrop halo hammer harbor harvest hazel hedgehog
heron hilltop hopscotch hornet hunter husky icing inkwell insect iris island jaguar jasmine jasper jelly jersey
jigsaw jungle kayak kernel keyboard kidney kingdom kiosk kitchen ladder lantern laptop lemur leopard lettuce lilac
limestone linen lizard lotus lyric mammoth mascot meadow mermaid method milkshake mirror mitten monkey moonbeam
mortar mosaic muffin mustard napkin nectar needle nickel nugget nutmeg oatmeal olive orbit orchard outpost oven
pancake parrot pasta peanut pencil penguin piccolo pickle pigeon pillow plaza plywood poem poppy porridge postcard
prairie pretzel pumpkin puppet puzzle quarry quiver rabbit radar radish raincoat raisin ranger rattle reindeer
rhubarb ribbon rooster ruby saffron sailor sapphire saucer sausage scarecrow scooter seagull season sequin shamrock
shelter shovel signal snowflake socket spider spinach spruce squirrel stable stocking sundial sunrise swallow syrup
teapot teaspoon temple tennis thimble tiger toffee topaz tortoise tractor treetop trumpet tugboat tulip tundra
turtle twilight velvet village vineyard volume vulture waffle wagon wallet walrus warbler weasel wedding whistle
window wombat woodland workshop yogurt zebra zenith zigzag zipper
"""
FIRST = tuple(_THREE_SYLLABLES.split())
SECOND = tuple(_TWO_SYLLABLES.split())
