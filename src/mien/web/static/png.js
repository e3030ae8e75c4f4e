// @ts-check
// PNG files that carry the recipe of what they show, and ZIP files without compression.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n >>> 0;
});

/** @param {Uint8Array} bytes */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** The chunks of a PNG, or none. @param {Uint8Array} bytes @returns {{type: string, data: Uint8Array}[]} */
export function chunks(bytes) {
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) return [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), found = [];
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) break;
    found.push({ type: String.fromCharCode(...bytes.subarray(at + 4, at + 8)), data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return found;
}

/** @param {{type: string, data: Uint8Array}[]} parts @returns {Uint8Array<ArrayBuffer>} */
export function assemble(parts) {
  const bytes = new Uint8Array(8 + parts.reduce((sum, { data }) => sum + 12 + data.length, 0)), view = new DataView(bytes.buffer);
  bytes.set(SIGNATURE);
  let at = 8;
  for (const { type, data } of parts) {
    view.setUint32(at, data.length);
    bytes.set(Array.from(type, (c) => c.charCodeAt(0)), at + 4);
    bytes.set(data, at + 8);
    view.setUint32(at + 8 + data.length, crc32(bytes.subarray(at + 4, at + 8 + data.length)));
    at += 12 + data.length;
  }
  return bytes;
}

/** @param {string} key @param {string} text */
const textChunk = (key, text) => ({ type: "tEXt", data: Uint8Array.from(`${key}\0${text}`, (c) => c.charCodeAt(0)) });

/** The recipe in a PNG, or null. @param {Uint8Array} bytes @returns {Record<string, any> | null} */
export function readRecipe(bytes) {
  for (const { type, data } of chunks(bytes)) {
    const end = data.indexOf(0);
    if (type === "tEXt" && new TextDecoder("latin1").decode(data.subarray(0, end)) === "mien") {
      try {
        const value = JSON.parse(new TextDecoder("latin1").decode(data.subarray(end + 1)));
        return value && typeof value === "object" ? value : null;
      } catch { return null; }
    }
  }
  return null;
}

/** What a picture claims of its origin, as XMP: `storage/provenance.py` writes the same. @param {object} recipe @returns {Uint8Array} */
export function xmpOf(recipe) {
  const { ascii, claim } = claimOf(recipe);
  /** @param {string} text */
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  return new TextEncoder().encode(`<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">` +
    `<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" ` +
    `xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:mien="urn:x-mien:recipe/">` +
    `<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>` +
    `<xmp:CreatorTool>mien</xmp:CreatorTool><dc:description><rdf:Alt><rdf:li xml:lang="x-default">${claim}</rdf:li></rdf:Alt></dc:description>` +
    `<mien:recipe>${escaped(ascii)}</mien:recipe></rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>`);
}

/** A recipe as ASCII, and what a picture made by it claims to be. @param {object} recipe */
function claimOf(recipe) {
  const ascii = JSON.stringify(recipe).replace(/[^\x20-\x7e]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const { at = "", walk = "" } = /** @type {{at?: string | string[], walk?: string[]}} */ (recipe);  // a latent (@) may be a photograph's
  const claim = `${at}${walk}`.includes("@") ? "Made by a model after photographs; may show real people." : "Synthetic: made by a model; shows no real person.";
  return { ascii, claim };
}

/** The chunks that every picture carries: its recipe, what it claims to be, and both as XMP. @param {object} recipe */
function marks(recipe) {
  const { ascii, claim } = claimOf(recipe), key = new TextEncoder().encode("XML:com.adobe.xmp\0\0\0\0\0"), packet = xmpOf(recipe), xmp = new Uint8Array(key.length + packet.length);
  xmp.set(key);
  xmp.set(packet, key.length);
  return [textChunk("mien", ascii), textChunk("Disclaimer", claim), { type: "iTXt", data: xmp }];
}

/** A PNG with a recipe, marked as synthetic. @param {Uint8Array} bytes @param {object} recipe */
export function withRecipe(bytes, recipe) {
  const [head, ...rest] = chunks(bytes).filter(({ type }) => type !== "tEXt" && type !== "iTXt");
  return assemble([head, ...marks(recipe), ...rest]);
}

/** Frames as one animated PNG. @param {Uint8Array[]} frames @param {number} fps @param {object} recipe */
export function animated(frames, fps, recipe) {
  /** @param {number} size @param {(view: DataView) => void} fill */
  const data = (size, fill) => { const bytes = new Uint8Array(size); fill(new DataView(bytes.buffer)); return bytes; };
  const first = chunks(frames[0]), head = first[0], size = new DataView(head.data.buffer, head.data.byteOffset);
  let order = 0;
  const parts = [head, ...marks(recipe), { type: "acTL", data: data(8, (view) => view.setUint32(0, frames.length)) }];
  frames.forEach((frame, index) => {
    parts.push({ type: "fcTL", data: data(26, (view) => {
      view.setUint32(0, order++); view.setUint32(4, size.getUint32(0)); view.setUint32(8, size.getUint32(4));
      view.setUint16(20, 1000); view.setUint16(22, Math.round(fps * 1000));
    }) });
    for (const { type, data: body } of chunks(frame)) {
      if (type !== "IDAT") continue;
      if (!index) parts.push({ type, data: body });
      else {
        const moved = new Uint8Array(body.length + 4);
        new DataView(moved.buffer).setUint32(0, order++);
        moved.set(body, 4);
        parts.push({ type: "fdAT", data: moved });
      }
    }
  });
  return assemble([...parts, { type: "IEND", data: new Uint8Array() }]);
}

/** A ZIP of files, stored as they are. @param {{name: string, bytes: Uint8Array}[]} files */
export function zip(files) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [], directory = [];
  let at = 0;
  for (const { name, bytes } of files) {
    const title = new TextEncoder().encode(name), crc = crc32(bytes);
    /** @param {number} size @param {number} shift */
    const record = (size, shift) => {
      const made = new Uint8Array(size + title.length), view = new DataView(made.buffer);
      view.setUint16(4 + shift, 20, true); view.setUint16(6 + shift, 0x800, true); view.setUint16(12 + shift, 0x21, true);
      view.setUint32(14 + shift, crc, true); view.setUint32(18 + shift, bytes.length, true); view.setUint32(22 + shift, bytes.length, true);
      view.setUint16(26 + shift, title.length, true);
      made.set(title, size);
      return { made, view };
    };
    const local = record(30, 0), central = record(46, 2);
    local.view.setUint32(0, 0x04034b50, true);
    central.view.setUint32(0, 0x02014b50, true);
    central.view.setUint16(4, 20, true);
    central.view.setUint32(42, at, true);
    directory.push(central.made);
    parts.push(local.made, new Uint8Array(bytes));
    at += local.made.length + bytes.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0), end = new Uint8Array(22), view = new DataView(end.buffer);
  view.setUint32(0, 0x06054b50, true);
  view.setUint16(8, files.length, true); view.setUint16(10, files.length, true);
  view.setUint32(12, size, true); view.setUint32(16, at, true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
