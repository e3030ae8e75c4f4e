// @ts-check
// A model's card on the page: its headings, paragraphs, lists, tables and commands. Text alone is taken from it, never a tag.
import { el } from "./dom.js";

/** What stands between `, ** and *, as elements; of a link, its words. @param {string} text @returns {(string | HTMLElement)[]} */
const inline = (/** @type {string} */ text) => text.replace(/\[([^\]]*)\]\([^)]*\)/g, "$1").split(/(`[^`]+`|\*\*[^*]+\*\*|\*[^*\s][^*]*\*)/).map((/** @type {string} */ part) => {
  const [, marks, words] = /^(`|\*{1,2})(.+)\1$/s.exec(part) ?? [];
  return marks ? el(marks === "`" ? "code" : marks === "**" ? "strong" : "em", {}, words) : part;
});

/** @param {string[]} lines */
function table(lines) {
  const cells = lines.filter((line) => !/^\|[-:| ]+\|$/.test(line)).map((line) => line.slice(1, -1).split("|").map((cell) => cell.trim()));
  const row = (/** @type {string[]} */ texts, /** @type {"td" | "th"} */ tag) => el("tr", {}, ...texts.map((text) => el(tag, {}, ...inline(text))));
  return el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "A table" }, el("table", {}, row(cells[0], "th"), ...cells.slice(1).map((texts) => row(texts, "td"))));
}

/** @param {string} text in Markdown, as `mien export` writes it @returns {HTMLElement[]} */
export function cardOf(text) {
  const body = text.replace(/^---\n.*?\n---\n/s, "").replace(/^\s*# .*\n/, "");  // the title is the model's name, which stands above
  const blocks = body.split(/(^```\w*\n.*?^```$)/ms).flatMap((part) => (part.startsWith("```") ? [part] : part.split(/\n\s*\n/))).map((block) => block.trim()).filter(Boolean);
  return blocks.flatMap((block) => section(block));
}

/** A heading with what follows it, or one of both. @param {string} block @returns {HTMLElement[]} */
function section(block) {
  if (block.startsWith("```")) return [el("pre", {}, block.replace(/^```\w*\n|\n```$/g, ""))];
  const heading = /^#+ (.*)/.exec(block), rest = heading ? block.slice(heading[0].length).trim() : block, lines = rest.split("\n");
  const content = !rest ? [] : lines.every((line) => line.startsWith("|")) ? [table(lines)]
    : /^[-*] /.test(rest) ? [el("ul", {}, ...rest.split(/\n(?=[-*] )/).map((item) => el("li", {}, ...inline(item.slice(2)))))] : [el("p", {}, ...inline(rest))];
  return [...(heading ? [el("h3", {}, ...inline(heading[1]))] : []), ...content];
}
