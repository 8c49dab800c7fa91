function drawAll() { return Promise.all([drawFront(), drawCurves(), drawMemory()]); }

function start() {
  document.documentElement.classList.add("scripted");
  buildFilter(); buildFront(); buildTable(); buildCurves(); buildMemory(); buildQuestions(); buildCells();
  onFilter(filterTable); onFilter(drawFront); onFilter(drawMemory); onFilter(listCells);
  onFilter(() => { listCurves(); drawCurves(); });
  applyFilter();
  findQuestions();
  openCell();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { listCurves(); drawAll(); });
  window.addEventListener("beforeprint", drawAll);
  let width = window.innerWidth, waiting;
  window.addEventListener("resize", () => {
    if (window.innerWidth === width) return;
    width = window.innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(drawAll, 150);
  });
}

start();
