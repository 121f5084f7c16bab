"""Which image files can be read here, and what to do about those that can't."""

import importlib
import importlib.util
from functools import cache

from PIL import features

COMMON_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".mpo",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
    }
    | {".ppm", ".pgm", ".pbm", ".pnm", ".tga"}
)
"""Suffixes that Pillow reads wherever it runs."""
HEIC_SUFFIXES = frozenset({".heic", ".heics", ".heif", ".heifs", ".hif"})
AVIF_SUFFIXES = frozenset({".avif", ".avifs"})
JPEG2000_SUFFIXES = frozenset({".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"})
CONVERT = "convert them to PNG or JPEG"
CONTENT_HINTS = {
    "HEIC": "pip install 'mlfix-train[heic]' to read HEIC",
    "AVIF": "pip install 'pillow>=11.3' to read AVIF",
    "a web page": "download it again",
    "a Git LFS pointer": "run `git lfs pull`",
    "a ZIP archive": "unpack it",
    "metadata of macOS (AppleDouble)": "remove it",
}

SIGNATURES = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"<svg": "SVG",
    b"PK\3\4": "a ZIP archive",
    b"\0\5\x16\7": "metadata of macOS (AppleDouble)",
}
"""First bytes of files that are no image that can be read, and what they are."""
UNREAD_FORMATS: dict[str, tuple[str, str]] = {
    "RAW": (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 "
        ".srf .srw .x3f",
        "export them as JPEG or PNG from the camera's software, darktable or the like",
    ),
    "PSD": (".psd .psb", CONVERT),
    "SVG": (".svg .svgz", "render them as PNG"),
    "PDF": (".pdf", "render their pages as PNG"),
    "PostScript": (".eps .ps .ai", "render them as PNG"),
    "video": (
        ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .webm .wmv",
        "extract their frames: ffmpeg -i <video> frame-%05d.jpg",
    ),
    "JPEG XL": (".jxl", CONVERT),
    "JPEG XR": (".jxr .wdp .hdp", CONVERT),
    "DICOM": (".dcm .dicom", "export them as 16-bit PNG"),
    "NIfTI": (".nii", "export their slices as 16-bit PNG"),
    "OpenEXR or HDR": (".exr .hdr .pfm", "tone-map them to PNG or JPEG"),
    "NumPy": (".npy .npz", "save their images as PNG, or pass arrays in Python"),
    "other image": (".dds .emf .fits .icns .ico .pcx .qoi .sgi .wmf .xbm .xcf .xpm", CONVERT),
}
"""Format to its suffixes, and what to do about files of it. None of them is read."""


@cache
def image_suffixes() -> frozenset[str]:
    """Returns the suffixes, in lower case, of the image files that can be read here."""
    found = COMMON_SUFFIXES
    if _pillow_reads("avif"):
        found |= AVIF_SUFFIXES
    if _pillow_reads("jpg_2000"):
        found |= JPEG2000_SUFFIXES
    return found | HEIC_SUFFIXES if can_read_heic() else found


@cache
def unread_suffixes() -> dict[str, str]:
    """Returns suffix to format (a key of :func:`format_hint`) of the image files that can't be read here."""
    found = {suffix: name for name, (suffixes, _) in UNREAD_FORMATS.items() for suffix in suffixes.split()}
    optional = (("HEIC", HEIC_SUFFIXES), ("AVIF", AVIF_SUFFIXES), ("JPEG 2000", JPEG2000_SUFFIXES))
    found |= {suffix: name for name, suffixes in optional for suffix in suffixes if suffix not in image_suffixes()}
    return found


def format_hint(name: str) -> str:
    """Returns what to do about files of a format that can't be read."""
    return UNREAD_FORMATS[name][1] if name in UNREAD_FORMATS else CONTENT_HINTS.get(name, CONVERT)


def is_read(name: str) -> bool:
    """Returns whether a format that needs support of its own (HEIC, AVIF, JPEG 2000) can be read here."""
    optional = {"HEIC": HEIC_SUFFIXES, "AVIF": AVIF_SUFFIXES, "JPEG 2000": JPEG2000_SUFFIXES}
    return not image_suffixes().isdisjoint(optional.get(name, ()))


def can_read_heic() -> bool:
    """Returns whether the extra ``heic`` (pi-heif), or pillow-heif, is installed."""
    return _heic_package() is not None


@cache
def register_heic() -> bool:
    """Makes Pillow read HEIC in this process; returns whether a package that can is installed."""
    name = _heic_package()
    if name is not None:
        importlib.import_module(name).register_heif_opener()
    return name is not None


def _heic_package() -> str | None:
    return next((name for name in ("pi_heif", "pillow_heif") if importlib.util.find_spec(name)), None)


def sniff_format(head: bytes) -> str:
    """Returns what a file that is no readable image holds, by its first 64 bytes; empty if that is not known."""
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
            return "HEIC"
        return "AVIF" if brand in (b"avif", b"avis") else "video"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer"
    return next((name for start, name in SIGNATURES.items() if head.startswith(start)), "")


def _pillow_reads(feature: str) -> bool:
    known = {*features.modules, *features.codecs, *features.features}
    return feature in known and bool(features.check(feature))
