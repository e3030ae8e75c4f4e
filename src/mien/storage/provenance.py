"""Where a picture comes from, inside the file: IPTC's digital source type as XMP, and the recipe that draws it again.

Every writer of a picture or a page in mien goes through this module, so that no file is written without it. The terms are those of
https://cv.iptc.org/newscodes/digitalsourcetype/. XMP stands where its specification puts it (ISO 16684-1; Adobe's XMP part 3):
an iTXt chunk of a PNG, a chunk of a WebP, an application extension of a GIF, a uuid box of an MP4. A page has meta elements.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Any, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from PIL import Image, PngImagePlugin

from mien import __version__
from mien.storage import bounded_json
from mien.storage.regular_file import open_regular

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
RECIPE_KEY = "mien"
PNG_KEY = "XML:com.adobe.xmp"
GIF_HEAD = b"\x21\xff\x0bXMP DataXMP"
GIF_TRAILER = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"  # ends the extension wherever a reader of sub-blocks lands
MP4_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    RECIPE_KEY: "urn:x-mien:recipe/",
}
MAX_XMP = 4 << 20  # bytes of a packet that is read
MAX_FILE = 1 << 30  # bytes of a GIF or a page that is searched

Format = Literal["PNG", "WEBP", "GIF"]


class Claim(Enum):
    """What a file says of its origin: IPTC's term, and a sentence for people."""

    SYNTHETIC = ("trainedAlgorithmicMedia", "Synthetic: made by a model; shows no real person.")
    FROM_PHOTOGRAPH = ("trainedAlgorithmicMedia", "Made by a model after photographs; may show real people.")
    BESIDE_PHOTOGRAPH = (
        "compositeWithTrainedAlgorithmicMedia",
        "Photographs, beside or turned into pictures made by a model.",
    )
    REPORT = ("compositeWithTrainedAlgorithmicMedia", "Text and charts with pictures made by a model.")
    INPUT = ("", "Pictures of a data set or a user, cropped and resized; mien did not make them.")  # of unknown origin
    CHART = ("dataDrivenMedia", "A chart of measurements.")

    @property
    def uri(self) -> str:
        """IPTC's term as it stands in a file; empty where the origin is unknown."""
        return IPTC + self.value[0] if self.value[0] else ""

    @property
    def sentence(self) -> str:
        return self.value[1]

    @staticmethod
    def of_addresses(addresses: Sequence[str]) -> Claim:
        """A face of seeds is nobody's; a latent that an address spells out (@) may be a photograph's."""
        return Claim.FROM_PHOTOGRAPH if any("@" in address for address in addresses) else Claim.SYNTHETIC


@dataclass(frozen=True)
class Provenance:
    """What a file says of itself."""

    recipe: Mapping[str, Any] = field(default_factory=dict)  # draws the picture again
    claim: Claim = Claim.SYNTHETIC

    @property
    def recipe_text(self) -> str:
        """The recipe as ASCII: no character that XML refuses."""
        return bounded_json.dumps(self.recipe, sort_keys=True)

    def xmp(self) -> bytes:
        """An XMP packet without padding."""
        names = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items() if prefix != "rdf")
        source = (
            f"<Iptc4xmpExt:DigitalSourceType>{self.claim.uri}</Iptc4xmpExt:DigitalSourceType>" if self.claim.uri else ""
        )
        return (
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
            f'<rdf:RDF xmlns:rdf="{NAMESPACES["rdf"]}"><rdf:Description rdf:about="" {names}>'
            f"{source}<xmp:CreatorTool>mien {__version__}</xmp:CreatorTool>"
            f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{self.claim.sentence}</rdf:li></rdf:Alt></dc:description>'
            f"<mien:recipe>{escape(self.recipe_text)}</mien:recipe>"
            '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
        ).encode()

    def png_info(self) -> PngImagePlugin.PngInfo:
        """The text chunks of a PNG: the explorer's page reads the recipe from the first."""
        notes = PngImagePlugin.PngInfo()
        notes.add_text(RECIPE_KEY, self.recipe_text)
        notes.add_text("Software", f"mien {__version__}")
        notes.add_text("Disclaimer", self.claim.sentence)
        notes.add_itxt(PNG_KEY, self.xmp().decode())
        return notes

    def save(self, image: Image.Image, target: Path | IO[bytes], format: Format, **options: Any) -> None:
        """Write `image` with this provenance; `options` are Pillow's. The caller makes the write atomic."""
        if format == "PNG":
            image.save(target, format="PNG", pnginfo=self.png_info(), **options)
        elif format == "WEBP":
            image.save(target, format="WEBP", xmp=self.xmp(), **options)
        else:
            buffer = io.BytesIO()
            image.save(buffer, format="GIF", **options)
            content = _gif_with_xmp(buffer.getvalue(), self.xmp())
            if isinstance(target, Path):
                target.write_bytes(content)
            else:
                target.write(content)

    def encode(self, image: Image.Image, format: Format, **options: Any) -> bytes:
        """`image` as the bytes of a file."""
        buffer = io.BytesIO()
        self.save(image, buffer, format, **options)
        return buffer.getvalue()

    def mark_mp4(self, path: Path) -> None:
        """Append the box with XMP to a complete MP4: at its end, where it moves no offset of the film."""
        packet = self.xmp()
        with path.open("ab") as file:
            file.write((24 + len(packet)).to_bytes(4, "big") + b"uuid" + MP4_UUID + packet)

    def meta(self) -> dict[str, str]:
        """Name and content of the meta elements of a page."""
        return {
            "generator": f"mien {__version__}",
            **({"Iptc4xmpExt:DigitalSourceType": self.claim.uri} if self.claim.uri else {}),
            "disclaimer": self.claim.sentence,
            **({RECIPE_KEY: self.recipe_text} if self.recipe else {}),
        }


def _gif_with_xmp(content: bytes, packet: bytes) -> bytes:
    """The extension stands behind the global palette, before the first frame."""
    flags = content[10]
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    version = b"GIF89a"  # the version that has extensions
    return version + content[6:at] + GIF_HEAD + packet + GIF_TRAILER + content[at:]


@dataclass(frozen=True)
class Marks:
    """What was found in a file; each part is None where it is absent."""

    source: str | None = None  # IPTC's term as a URI
    software: str | None = None
    recipe: dict[str, Any] | None = None


def read(path: Path) -> Marks:
    """What a picture, a film or a page says of itself. Raises OSError, or ValueError for a file that is damaged."""
    with open_regular(path) as file:
        head = file.read(16)
        file.seek(0)
        if head[4:8] == b"ftyp":
            return _parse(_mp4_packet(file))
        if head.startswith(b"GIF8"):
            rest = file.read(MAX_FILE).partition(GIF_HEAD)[2]
            return _parse(rest.partition(b'<?xpacket end="r"?>')[0] if rest else None)
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"<!", b"<h", b"<H")):
            return _page(file.read(MAX_FILE).decode("utf-8", "replace"))
        with Image.open(file) as image:
            info = image.info
            packet = info.get(PNG_KEY) or info.get("xmp")
        marks = _parse(packet.encode() if isinstance(packet, str) else packet)
        if marks.recipe is not None:
            return marks
        text = info.get(RECIPE_KEY)  # pictures of mien before it wrote XMP
        software = marks.software or info.get("Software")
        return Marks(marks.source, software, _recipe(text) if isinstance(text, str) else None)


def _mp4_packet(file: IO[bytes]) -> bytes | None:
    """The XMP among the top-level boxes."""
    size = file.seek(0, io.SEEK_END)
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(24)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:16], "big") if length == 1 else length or size - at
        if length < 8 or at + length > size:
            raise ValueError("a box goes on after the end of the file")
        if head[4:8] == b"uuid" and head[8:24] == MP4_UUID:
            return file.read(min(length - 24, MAX_XMP + 1))
        at += length
    return None


def _page(text: str) -> Marks:
    """The meta elements that `Provenance.meta` describes."""
    pairs = re.findall(r'<meta name="([\w:]+)" content="([^"]*)">', text.partition("</head>")[0])
    meta = {name: html.unescape(content) for name, content in pairs}
    recipe = meta.get(RECIPE_KEY)
    return Marks(meta.get("Iptc4xmpExt:DigitalSourceType"), meta.get("generator"), _recipe(recipe) if recipe else None)


def _parse(packet: bytes | None) -> Marks:
    """An XMP packet. Raises ValueError for one that is damaged, or that declares entities."""
    if packet is None:
        return Marks()
    if len(packet) > MAX_XMP or b"<!" in packet:
        raise ValueError("its XMP is too long, or declares entities")
    try:
        root = ElementTree.fromstring(re.sub(rb"<\?xpacket.*?\?>", b"", packet).strip(b"\x00 \r\n\t\xef\xbb\xbf"))
    except ElementTree.ParseError as error:
        raise ValueError(f"its XMP is damaged: {error}") from None
    found = {}
    for element in root.iter(f"{{{NAMESPACES['rdf']}}}Description"):
        found.update(element.attrib)  # other programs rewrite properties as attributes
        found.update({child.tag: child.text or "" for child in element})
    recipe = found.get(f"{{{NAMESPACES[RECIPE_KEY]}}}recipe")
    return Marks(
        found.get(f"{{{NAMESPACES['Iptc4xmpExt']}}}DigitalSourceType"),
        found.get(f"{{{NAMESPACES['xmp']}}}CreatorTool"),
        _recipe(recipe) if recipe else None,
    )


def _recipe(text: str) -> dict[str, Any]:
    return bounded_json.loads_object(text, max_bytes=1 << 20)
