"""Videos for the tests, made by ffmpeg."""
import pathlib
import subprocess

FONT = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"


def srt(path, lines):
    def stamp(seconds):
        ms = int(round(seconds * 1000))
        return f"{ms // 3600000:02}:{ms // 60000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"
    text = "".join(f"{i}\n{stamp(a)} --> {stamp(b)}\n{t}\n\n" for i, (a, b, t) in enumerate(lines, 1))
    pathlib.Path(path).write_text(text)
    return str(path)


def ffmpeg(*args):
    subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *map(str, args)], check=True, stdin=subprocess.DEVNULL)


def make(path, scenes, subtitles=(), seconds=4, size="640x360", audio=False):
    """scenes: (colour, words on the screen); each lasts `seconds`."""
    path = pathlib.Path(path)
    args, n = [], len(scenes)
    for colour, words in scenes:
        draw = f",drawtext=fontfile={FONT}:text='{words}':fontsize=44:fontcolor=white:x=(w-tw)/2:y=(h-th)/2" if words else ""
        args += ["-f", "lavfi", "-i", f"color=c={colour}:s={size}:d={seconds}:r=25{draw}"]
    if subtitles:
        args += ["-i", srt(path.with_suffix(".srt"), subtitles)]
    if audio:
        args += ["-f", "lavfi", "-i", f"sine=frequency=440:duration={seconds * n}"]
    joined = "".join(f"[{i}]" for i in range(n))
    args += ["-filter_complex", f"{joined}concat=n={n}:v=1[v]", "-map", "[v]"]
    args += ["-map", f"{n}:s", "-c:s", "mov_text" if path.suffix == ".mp4" else "srt"] if subtitles else []
    args += ["-map", f"{n + bool(subtitles)}:a", "-c:a", "aac"] if audio else []
    ffmpeg(*args, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", path)
    return path


def pancake(path):
    """Three scenes with subtitles; the second says what the pancake is served with."""
    return make(path, [("0x204080", "HARBOUR KITCHEN"), ("0x803020", "PANCAKE DAY"), ("0x206040", "FERRY TO THE ISLAND")],
                [(0.5, 3.5, "Good morning from the harbour kitchen."), (4.5, 7.5, "Anna serves the pancake with maple syrup."),
                 (8.5, 11.5, "After lunch the ferry leaves for the island.")])
