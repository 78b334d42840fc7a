# A worker (see ../common.py): R's qvalue on p-values, or limma's lmFit and eBayes on a matrix.
# usage: Rscript screen.R qvalue|limma FILE   (FILE: raw doubles, little-endian; of a matrix column by column) [ROWS]
say <- function(...) { cat("@@", ..., "\n", sep = ""); flush(stdout()) }
a <- commandArgs(TRUE)
name <- a[1]
if (!suppressMessages(suppressWarnings(require(name, quietly = TRUE, character.only = TRUE)))) {
  say('{"left_out": "', name, ' is not installed in R"}')
  quit()
}
values <- readBin(a[2], "double", file.size(a[2]) / 8, endian = "little")
if (name == "limma") {
  matrix <- matrix(values, nrow = as.integer(a[3]))
  design <- cbind(Intercept = 1, group = (seq_len(ncol(matrix)) - 1) %% 2)
}
step <- function() {
  if (name == "qvalue") qvalue(values) else eBayes(lmFit(matrix, design))
}
input <- file("stdin", "r")
while (length(command <- readLines(input, 1)) == 1) {
  if (command == "go") {
    seconds <- system.time(found <- step())[["elapsed"]]
    if (seconds < 0.05) {
      times <- ceiling(0.1 / max(seconds, 0.002))
      seconds <- system.time(for (i in seq_len(times)) found <- step())[["elapsed"]] / times
    }
    say('{"seconds": ', format(seconds, digits = 8), "}")
  } else if (command == "estimates") {
    number <- function(x) format(x, digits = 15)
    kept <- if (name == "qvalue") paste0('"pi0": ', number(found$pi0)) else
      paste0('"d0": ', number(found$df.prior), ', "s0_squared": ', number(found$s2.prior))
    peak <- sum(gc()[, 6])
    say('{"estimates": {', kept, '}, "ok": true, "peak_mb": ', number(peak), ', "version": "', name, " ",
        as.character(packageVersion(name)), ", ", R.version$version.string, '"}')
  }
}
