"""Which files of which games are music, and which noise: folders of /usr/share. Packages and licences: SOURCES.md.

Other games are heard in training than in the test, and others again in the second test, "other". Nobody listened to all of them: they were
chosen by their names.
"""

from __future__ import annotations

SOUND_OF_STAMP = r"(?!.*_desc|\w*_[a-z]{2}(_[A-Za-z]+)?$).*"  # not what it is called, in any language
# Folders with nothing but music, and what is none of it.
NOT_MUSIC = ("wind_ambient",)
MUSIC = {
    "train": (
        "games/lincity-ng/music",
        "games/asc/music",
        "games/singularity/music",
        "games/supertux2/music",
        "games/warmux/music",
        "games/hedgewars/Data/Music",
        "games/widelands/data/music",
        "unknown-horizons/content/audio/music",
        "games/warzone2100/music/albums",
        "games/wesnoth/1.16/data/core/music",
        "games/supertuxkart/data/music",
        "games/openclonk/Music.ocg",
        "games/fillets-ng/music",
        "games/flare/mods/fantasycore/music",
        "freedroidrpg/data/sound/music",
        "hyperrogue/music",
        "scummvm/drascula/audio",
        "starfighter/music",
        "asterisk/moh",
        "naev/dat/snd/music",
        "games/btanks/data/tunes",
        "games/amoebax/music",
        "games/enigma/music",
        "games/plee-the-bear/music",
        "planetblupi/music",
        "games/xmoto/Textures/Musics",
        "gigalomania/music",
        "pushover/themes",
        "games/raincat/data/music",
        "games/etw/music",
        "games/lordsawar/music",
        "games/glob2/data/zik",
        "games/powermanga/sound",
        "games/fretsonfire/data/songs",
        "sounds/lomiri/ringtones",
        "lmms/samples/stringsnpads",
        "lmms/samples/bassloops",
        "games/redeclipse/data/sounds/music",
        "games/ufoai/music",
        "games/nexuiz/sound/cdtracks",
        "scratch/Media/Sounds/Music Loops",
    ),
    "test": (
        "games/colobot/music",
        "games/etr/music",
        "games/marsshooter/audio/music",
        "games/trackballs/music",
        "games/freecol/default/resources/music",
    ),
    "other": ("games/frogatto/modules/frogatto/music",),
}
# Folders with sounds, and which of them nobody could take for speech or music, by their names: no crowds, shouts, jingles or choirs.
NOISE = {
    "train": {
        "games/lincity-ng/sounds": r"(Blacksmith|Build|Coal|Dirt|Farm|Fire|Green|Harbor|Industry|Mill|MonumentConstruction|OreMine"
        r"|OrganicFarm|Parkland|Power|Rail|Raze|Recycle|Rocket|Substation|Tip|Trafic|Water|WindMill)\w*",
        "games/megaglest/tilesets": r"wind|day|night|nightime|sunny_day|desertday|rain",
        "games/megaglest/techs/megapack/commondata/sounds": r"wolf|hawk|rooster|owl|chicken|mudchute_cow_1"
        r"|(air_|anvil|arrow_hit|catapult|cow|defense_tower|dragon_hit|golem_walk|horseman_walk|orni|pig)\w*",
        "games/warmux/sound/default/weapons": r"(aircraft|airhammer|anvil|blowtorch|construct|dynamite|embers|explosion|flame|grenade|gun"
        r"|jetpack|m16|ricoche|riot|rocket|shotgun)\w*",
        "games/minetest/games/minetest_game/mods": r"(carts|default|doors|env_sounds|fire|tnt|xpanes)_.*",
        "games/wesnoth/1.16/data/core/sounds": r"(axe|bat-flapping|birds|bite|bow|campfire|cave-in|claws|club|crossbow|dagger|dart"
        r"|dragonstick|entangle|explosion|fire|fist|flail|flame|fuse|gunshot|hatchet|hiss|horse-(elf-)?canter|ink|knife|lightning|mace|melee-fire|miss"
        r"|morning|mud|night|pincers|poison|rumble|ship|skeleton-(big-)?hit|sling|spear|squishy|staff|sword|tail|throw|thunderstick|torch"
        r"|water-blast|wolf-growl|wose)(?!.*die).*",
        "games/widelands/data/sound": r"(?!lobby|message|under_attack|site_occupied|biginn|inn|tavern|ration|meal|ironping|goldping).*",
        "games/widelands/data/world/critters": r".*",
        "games/torcs/data/sound": r"(?!locked).*",
        "games/endless-sky/sounds": r"(?!alarm|fail).*",
        "buckle/wav": r".*-0",
        "unknown-horizons/content/audio/sounds": r"build|click|flippage|lumberjack\w*|sheepfield|smith|stonemason|windmill",
        "games/scorched3d/data/globalmods/none/data/wav": r"(?!beep|text|play|para).*",
        "games/scorched3d/data/globalmods/apoc/data/wav": r"(?!cheering|scream|extralife|fight4life|lockon|citysounds).*",
        "games/searchandrescue/sounds": r"(?!flir|screenshot|splash_human).*",
        "games/flare/mods/fantasycore/soundfx": r"(?!female|male|minotaur|goblin|zombie|level_up|warcry|heal|no_mana|timestop|potion).*",
        "games/flare/mods/empyrean_campaign/soundfx/environment": r".*",
        "games/supertuxkart/data/sfx": r"anvil|bowling_shoot|bzzt|car_revup|clock|hammer|inflate|locked|machine_sound|metal_clang|nitro"
        r"|parachute|plopp|plunger|shoot|skid|splash|static-radio|strike|swatter|wooden_bridge|(airplane|ball|crash|engine|exotic|explosion|fireworks|river"
        r"|waterfall)[\w-]*",
        "games/supertuxkart/data/tracks": r"cow|sheep|steamLocomotive|spaceship_engine\w*",
        "games/freeorion/default/data/sound/combat": r".*",
        "games/dink/dink/Sound": r"arrow|axe|bhit|bird1|bow1|burn|fire|open|punch|stairs|swing|sword2",
        "freedroidrpg/data/sound/effects": r"(swing|Glass|tux_foot|open_chest|Blast|Item_\w+_(Drop|Put)|Item_Drop|drop_|Pulse|Military"
        r"|Laser|Single|Phaser|Plasma|Exterminator|Sword)\w*",
        "hyperrogue/sounds": r"hit-(?!prin).*|fire|splash\d|steamhiss|trapdoor|(open|close)gate|click|apple",
        "starfighter/sound": r"(?!maledeath|item).*",
        "wordwarvi/sounds": r"rocket_exhaust_1|gunwheel_sound|tesla_tower|toyota\w*|zzzt|jetwash|clang|(metalbang|stonebang|flak"
        r"|missile_launch|volcano|missile_expl|big_expl|bombexpl|synthetic)\w*",
        "tuxpaint/stamps/household": SOUND_OF_STAMP,
        "tuxpaint/stamps/animals": SOUND_OF_STAMP,
        "tuxpaint/stamps/naturalforces": SOUND_OF_STAMP,
        "tuxpaint/stamps/vehicles": SOUND_OF_STAMP,
        "tuxpaint/stamps/space": SOUND_OF_STAMP,
        "naev/dat/snd/sounds": r"(?!computer|target|nav).*",
        "games/btanks/data/sounds": r"(?!zombie|laugh|taking|deadman|kamikaze|klaxon-funny|horror|worm-eat|disembark|move"
        r"|change|return|select|respawn).*",
        "games/bzflag": r"burrow|ricochet|fire|steamroller|boom|laser|phantom|shock|missile|explosion|land|pop|thief|bounce",
        "games/boswars/units": r"sfx_.*|(harvester|gturret|smolder)_attack|buggy_die|smolder_die|artil\.die|destroyer\.die",
        "games/dustracing2d/sounds": r"carHit\d?|skid|carEngine|pit|menuBoom",
        "games/foobillardplus/data": r"ballinhole|oneballontable|shuffleballs|bomb|balloutoftable|smack",
        "games/openssn/sounds": r"explosion|torpedo-launch|sonar-ping",
        "games/pekka-kana-2/data": r"splash|pump|switch3|openlock|eggcrack|boxcrack|tankshot|explot|app_bite",
        "games/plee-the-bear/sound": r"rain|earthquake|splash|crack|hit|hit-chest-\d|peck|flying|attack|croak-\w+|clung|slap|throw",
        "games/enigma/soundsets": r"explosion\d|quake|shatter|drown|drip|dropinwater|st-(thud|stone|switch|metal|move|coinslot)"
        r"|ballcollision|swamped",
        "gigalomania/sound": r"jetplane|biplane|spaceship|woodbrk|bomb",
        "games/minetest/mods": r"(?!homedecor_doorbell|nether_portal_ambient|xdecor_(enchanting|bouncy)|mobs_spell).*",
        "games/pingus/data/sounds": r"splash|digger|chink|tick|plop2?",
        "granatier/sounds": r"break|explode|crunch|putbomb|deepfall",
        "kolf/sounds": r"puddle|hit|bumper|wall|holed|blackhole\w*",
        "games/atanks/sound": r".*",
        "games/powermanga/sounds": r"\w*(explosion|fire|shock)\w*",
        "games/gl-117/sounds": r"(?!beep).*",
        "games/crrcsim/sounds": r"electric|glider|fan",
        "games/zaz": r"roll|push|pull|eliminate",
        "games/brainparty": r"swoosh_long|card_flip2?|zap|glass_break|slide|gun\d|electricity|whack|balloon_pop|bubble|soft_boom|explosion"
        r"|mouse_click",
        "games/caveexpress/sounds": r"(crate-hit|tile-|stone-hit|water-|cave|npc-(mammut-walk|flying-flying|walking-walk|cave-swim))\w*",
        "games/etw/snd": r"palo|dog|cannon|shot|crash|freeze|fischio\w+|shoot\d?",
        "games/etw/intro": r".*",
        "ksirk/skins/default/Sounds": r".*",
        "games/netpanzer/sound": r"battle_\w+|hit_\d+|miss_\d|unitsound_\w+|expl_\d|\w\w-fire|hev\w+|tankidle",
        "games/pinball": r"flip|nudge|bump\w*|shoot",
        "games/gamine/sounds": r"drip|crash|bubble|brick|eraser\d",
        "lmms/samples/effects": r"explode01|warp\d+|start\d+|stop01",
        "games/redeclipse/data/sounds/ambience": r"(?!wakawaka).*",
        "games/redeclipse/data/sounds/sfx": r"(?!regenerate|item|chat|alarm|error|respawn|critical).*",
        "games/redeclipse/data/sounds/weapons": r"(?!notify|beep).*",
        "games/redeclipse/data/sounds/player": r"(swimstep|concstep|footstep|land)\d?",
        "games/flightgear/Sounds": r"(wind|R-1535|turb|helicopter|exhaust|thunder|rain|starter|radionoise|rotor|p51d|gatling|squeal|engine"
        r"|rumble|blade|overspeed|flaps|rattle|cranking|prop|engstart|door|wasp|wave|fan|jet|whine|crash|avionics).*|gear(-lck)?",
        "games/flightgear/Aircraft/c172p/Sounds": r"(?!checklist).*",
        "games/ufoai/sound/ambience": r"(?!disco|jingle|radiomessage|tv_newswav|aliencom).*",
        "games/ufoai/sound/weapons": r"(?!irgoggles|medikit|psiattack).*",
        "games/ufoai/sound/misc": r"break.*|electro",
        "games/ufoai/sound/doors": r".*",
        "games/ufoai/sound/footsteps": r".*",
        "games/ufoai/sound/impact": r".*",
        "games/ufoai/sound/ugv": r".*",
        "scratch/Media/Sounds/Animal": r".*",
        "scratch/Media/Sounds/Effects": r"(?!BellToll).*",
    },
    "test": {
        "games/etr/sounds": r"\w+_slide|tree_hit",
        "games/trackballs/sfx": r"roll_sound|machine_loop|crash|sandcrash",
        "games/hedgewars/Data/Sounds": r"baseballbat|bee|blowtorch|bump|drillgun|explosion|firepunch_hit|flamethrower|gun|hammer"
        r"|ice_beam\w*|jetpackboost|landgun|minetick|minigun|molotov|mortar|pickhammer|placed|plane|rcplane|rope\w+|shotgun\w+|shutterclick|sniperreload"
        r"|splash|steam|steps|whipcrack|\w*_?impact",
        "games/lugaru/Sounds": r"(?!Console|Music|Rabbit).*",
        "games/simutrans/pak/sound": r".*",
    },
    "other": {  # of Cube 2 not the folder sfx, which has sounds of Red Eclipse
        "games/cube2/packages/sounds/q009": r"(?!jumppad|outofammo|quaddamage|ren|teleport).*",
        "games/cube2/packages/sounds/aard": r"bang|land|tak|weapload",
        # projectile-*: coded so that no program reads them from the middle.
        "games/frogatto/modules/frogatto/sounds": r"(?!Menu|PickUp|Special|achievement|coin|insert|Paddle|milgrambreath|teleport"
        r"|projectile-).*",
    },
}
