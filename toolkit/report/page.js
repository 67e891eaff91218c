"use strict";
// Turns the headings of sortable tables into buttons. Without this script, tables keep the order of the file.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  // A row of prose belongs to the data row above it and moves with it.
  const followers = new Map();
  let last;
  for (const row of body.rows) {
    if (row.className === "prose") followers.set(last, row);
    else last = row;
  }
  const originalOrder = new Map([...body.rows].map((row, position) => [row, position]));

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
  };
  const compare = (left, right, isFigure) =>
    isFigure ? Number(left) - Number(right) : left.localeCompare(right, "en", { numeric: true });
  const inOrder = (a, b) => originalOrder.get(a) - originalOrder.get(b);

  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    heading.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const isDescending = heading.getAttribute("aria-sort") === "ascending";
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
      const isFigure = heading.classList.contains("figure");
      const rows = [...body.rows].filter((row) => row.className !== "prose").sort((a, b) => {
        const [left, right] = [value(a, column), value(b, column)];
        // Cells without a figure come last in both directions.
        if (left === "" || right === "") return (left === "") - (right === "") || inOrder(a, b);
        return (isDescending ? -1 : 1) * compare(left, right, isFigure) || inOrder(a, b);
      });
      body.classList.add("sorted");
      for (const row of rows) body.append(row, ...(followers.has(row) ? [followers.get(row)] : []));
    });
  });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
