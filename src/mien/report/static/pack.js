// A click on a column's head sorts the table by it; another click turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const column = head.cellIndex;
    const descending = head.dataset.order !== "descending";
    head.dataset.order = descending ? "descending" : "ascending";
    const value = (row) => {
      const text = row.cells[column].textContent.trim();
      const number = Number.parseFloat(text.replaceAll(",", ""));
      return column && !Number.isNaN(number) ? number : text;
    };
    const rows = [...table.tBodies[0].rows].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0));
    table.tBodies[0].append(...(descending ? rows.reverse() : rows));
  });
}
